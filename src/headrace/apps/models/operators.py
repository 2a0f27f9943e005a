"""Which ONNX operators a model may use: pure functions of their inputs, without loops and without files.

Left out on purpose: loops and branches (``Loop``, ``Scan``, ``If``), random numbers, operators that make
much of little (``Tile``, ``Range``, ``ConstantOfShape``, ``Expand``, ``Resize``), texts and images.
"""

from __future__ import annotations

from typing import Final

_MATH: Final = """
    Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Clip Concat Constant
    Conv Cos Cosh CumSum Div Dropout Elu Equal Erf Exp Flatten Floor GRU Gather GatherElements GatherND Gelu
    Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid Identity IsInf IsNaN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max MaxPool Mean Min
    Mod Mul Neg Not Or PRelu Pad Pow RNN Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round Selu Shape Sigmoid Sign Sin Sinh Slice
    Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tan Tanh TopK Transpose Unsqueeze Where Xor
"""
_LEARNED: Final = """
    ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
    Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier
    TreeEnsembleRegressor
"""
ALLOWED: Final[dict[str, frozenset[str]]] = {
    "": frozenset(_MATH.split()),
    "ai.onnx.ml": frozenset(_LEARNED.split()),
}
"""Domain -> names; no other domain is allowed, so no operator of somebody's own."""
SIZE_MAX: Final = 64 * 1024 * 1024
NODES_MAX: Final = 20_000
COLUMNS_MAX: Final = 10_000
BLOCK_ROWS: Final = 128
"""Rows that a model is asked about at once; see :mod:`headrace.apps.models.scoring`."""
