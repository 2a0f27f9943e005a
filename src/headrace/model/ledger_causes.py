"""What the names of the loss ledger mean, for people: where did a sample go, and what to do now.

Every count of :data:`headrace.model.ledger.COUNTS` that takes a sample out of the way from device to
table, or needs a word, stands here once; the command line, REST and the console show these texts.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Hop = Literal["device", "edge", "log", "historian"]
Weight = Literal["fine", "odd", "loss"]


class Cause(NamedTuple):
    """One named cause.

    Attributes:
        name: the count's name.
        hop: where the sample left the way.
        weight: ``fine``: as it should be; ``odd``: nothing is lost for good, or it cannot be known;
            ``loss``: samples are gone.
        title, text, remedy: in English and Chinese; the remedy is empty when nothing is to do.
    """

    name: str
    hop: Hop
    weight: Weight
    title: tuple[str, str]
    text: tuple[str, str]
    remedy: tuple[str, str] = ("", "")


CAUSES: Final = (
    Cause(
        "missed_slow", "device", "loss",
        ("device too slow", "设备响应过慢"),
        (
            "Polls were due while the one before had not been answered.",
            "上一次轮询尚未应答，下一次轮询已到期。",
        ),
        (
            "Lengthen scan_interval_ms, read fewer tags, or look at the load of device and network.",
            "加长 scan_interval_ms、减少点位，或检查设备与网络负载。",
        ),
    ),
    Cause(
        "missed_overload", "edge", "loss",
        ("edge overloaded", "边缘过载"),
        (
            "Polls were due while the edge had more to do than it can, or while the connection's "
            "buffer was full because the log did not take its frames.",
            "边缘处理不过来，或连接的缓冲区已满（日志未接收数据帧），到期的轮询未能进行。",
        ),
        (
            "See which of the two: headrace status (EDGE-1601, EDGE-1602)",
            "查看属于哪种情况：headrace status（EDGE-1601、EDGE-1602）",
        ),
    ),
    Cause(
        "missed_disconnected", "device", "loss",
        ("not connected", "未连接"),
        (
            "Polls were due while there was no connection to the device.",
            "与设备没有连接时到期的轮询。",
        ),
        (
            "See why the connection was lost: headrace status",
            "查看连接中断的原因：headrace status",
        ),
    ),
    Cause(
        "missed_failed", "device", "loss",
        ("poll failed", "轮询失败"),
        (
            "The poll was sent and the device gave no answer, or an error for the whole of it.",
            "轮询已发出，但设备没有应答，或整体返回错误。",
        ),
        ("See the connection's last error: headrace status", "查看连接的最近错误：headrace status"),
    ),
    Cause(
        "missed_foreign", "edge", "loss",
        ("reading with unknown tags", "读数含未知点位"),
        (
            "A reading had tags that its connection does not have, and was not used (EDGE-1005).",
            "读数中含有不属于该连接的点位，整体未采用（EDGE-1005）。",
        ),
        ("It is an error of the connector: report it.", "这是连接器的错误，请报告。"),
    ),
    Cause(
        "missed_device", "device", "loss",
        ("device let samples go", "设备丢弃样本"),
        (
            "The device said that its own queue overflowed; each such word counts as one sample, "
            "the true number is unknown.",
            "设备报告其自身队列溢出；每次报告计为一个样本，真实数量未知。",
        ),
        (
            "Lengthen the device's queue, or its sampling interval.",
            "加大设备的队列，或加长采样间隔。",
        ),
    ),
    Cause(
        "missed_gap", "device", "loss",
        ("gap in the device's sequence", "设备序号不连续"),
        (
            "Numbers of the device's messages were skipped; each skipped message counts as one "
            "sample, what was in it is unknown.",
            "设备消息的序号出现跳跃；每条跳过的消息计为一个样本，其内容未知。",
        ),
        (
            "See the network and the device's own broker; a rebirth or a new subscription repaired "
            "the values.",
            "检查网络和设备侧的消息代理；重生或重新订阅已恢复当前值。",
        ),
    ),
    Cause(
        "missed_edge_down", "edge", "loss",
        ("edge did not run", "边缘未运行"),
        (
            "Polls were due after the edge had been killed, until it ran again; counted in the minute "
            "of its return.",
            "边缘被强行终止后到恢复运行之间到期的轮询；计入恢复的那一分钟。",
        ),
        ("See what ended it: logs/edge.log", "查看终止原因：logs/edge.log"),
    ),
    Cause(
        "filtered", "edge", "fine",
        ("kept back by dead-band", "被死区过滤"),
        (
            "The value stayed within the tag's dead-band of the last published one.",
            "数值与上次发布值之差在点位死区之内。",
        ),
    ),
    Cause(
        "protected", "edge", "fine",
        ("kept back by a protection", "因数据保护而保留"),
        (
            "The tag's protection says that its samples do not leave the edge as they are: they stay "
            "there, leave as aggregates, or leave encrypted.",
            "点位的数据保护规定其样本不以原样离开边缘：保留在边缘、仅以聚合值离开，或加密后离开。",
        ),
    ),
    Cause(
        "buffered", "edge", "odd",
        ("waits at the edge", "在边缘等待"),
        ("Read, and not in the log yet.", "已读取，尚未进入日志。"),
    ),
    Cause(
        "dropped_stopped", "edge", "loss",
        ("connection stopped", "连接被停止"),
        (
            "The connection was stopped and the log did not take these within two seconds.",
            "连接被停止，日志在两秒内未接收这些样本。",
        ),
        ("See whether the broker runs: headrace status", "检查消息总线是否运行：headrace status"),
    ),
    Cause(
        "dropped_in_doubt", "edge", "loss",
        ("sent without an answer", "已发送但无应答"),
        (
            "The frame was on its way when the connection was stopped, and the log does not have it.",
            "停止连接时数据帧正在发送，而日志中没有它。",
        ),
        ("See whether the broker runs: headrace status", "检查消息总线是否运行：headrace status"),
    ),
    Cause(
        "dropped_edge_killed", "edge", "loss",
        ("edge killed or silent", "边缘被终止或失联"),
        (
            "Read, and not yet in the log when the edge was last heard. Sources that keep their data "
            "give them again.",
            "最后一次收到边缘消息时，已读取但尚未进入日志。能保存数据的来源会再次给出。",
        ),
        ("See what ended it: logs/edge.log", "查看终止原因：logs/edge.log"),
    ),
    Cause(
        "edge_log_full", "edge", "loss",
        ("edge's own log full", "边缘日志已满"),
        (
            "The edge was apart from its hub until its own log was full, and removed its oldest "
            "samples, as on_full = drop_oldest asks (EDGE-1903).",
            "边缘与中心断开直至自身日志已满，并按 on_full = drop_oldest 删除了最旧的样本（EDGE-1903）。",
        ),
        (
            "Give its log more room: headrace edge set --log-gib",
            "加大其日志空间：headrace edge set --log-gib",
        ),
    ),
    Cause(
        "in_log", "log", "odd",
        ("waits in the log", "在日志中等待"),
        ("Safe on disk; the historian has not stored it yet.", "已安全落盘；历史库尚未存储。"),
    ),
    Cause(
        "lost", "log", "loss",
        ("lost in the log", "在日志中丢失"),
        (
            "The log had it on disk and no longer had it when the historian came.",
            "日志曾将其落盘，历史库读取时已不存在。",
        ),
        (
            "See who purged the stream SAMPLES; give the log more room if it was its bound.",
            "查看谁清除了 SAMPLES 流；若因上限所致，请加大日志空间。",
        ),
    ),
    Cause(
        "skipped", "log", "odd",
        ("before the ledger", "账本之前"),
        (
            "Published before this ledger was begun; the table may have it.",
            "在账本建立之前发布；表中可能已有。",
        ),
    ),
    Cause(
        "duplicate", "historian", "fine",
        ("copy", "重复"),
        (
            "The table already had a sample of the same tag and source timestamp; the one received "
            "last counts.",
            "表中已有同一点位、同一源时间戳的样本；以最后收到的为准。",
        ),
    ),
    Cause(
        "recomputed", "historian", "fine",
        ("recomputed", "重新计算"),
        (
            "Results of formulas that took the place of earlier ones: a sample came late or was "
            "corrected, a calendar or a formula was edited; headrace formula changes says which.",
            "公式结果替换了先前的结果：样本迟到或被更正，日历或公式被修改；"
            "明细见 headrace formula changes。",
        ),
    ),
    Cause(
        "rejected", "historian", "loss",
        ("in quarantine", "已隔离"),
        (
            "Its frame could not be read; it is kept in the quarantine folder with the reason.",
            "其数据帧无法读取；连同原因保存在隔离文件夹中。",
        ),
        ("See what publishes it: quarantine/*.json", "查看其来源：quarantine/*.json"),
    ),
)  # fmt: skip

UNEXPLAINED: Final = Cause(
    "unexplained", "log", "loss",
    ("UNEXPLAINED", "无法解释"),
    (
        "Both sides differ and no cause is known: samples are lost or doubled, or a count is wrong.",
        "两侧数目不同且原因未知：样本丢失或重复，或计数有误。",
    ),
    (
        "Keep logs/ and the data folder and report it: this must not happen.",
        "请保留 logs/ 与数据文件夹并报告：此情况不应发生。",
    ),
)  # fmt: skip

BY_NAME: Final = {cause.name: cause for cause in (*CAUSES, UNEXPLAINED)}
