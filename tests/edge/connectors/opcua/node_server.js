// A foreign OPC UA server for the tests, on node-opcua. It prints one JSON line when it listens.
//
//   node node_server.js PORT FOLDER [None|Sign|SignAndEncrypt]
//
// Users: edge / right when the mode is not None, else anonymous. Lines on stdin are JSON:
//   {"set": NAME, "value": V, "status": "Good", "time": MILLISECONDS}
//   {"exit": true}
"use strict";
const readline = require("readline");
const opcua = require("node-opcua");
const { DataType, Variant, VariantArrayType, DataValue, StatusCodes } = opcua;

const [port, folder, mode = "None"] = process.argv.slice(2);

async function main() {
  const certificates = new opcua.OPCUACertificateManager({
    rootFolder: folder,
    automaticallyAcceptUnknownCertificate: true,
  });
  await certificates.initialize();
  const secure = mode !== "None";
  const server = new opcua.OPCUAServer({
    port: Number(port),
    hostname: "127.0.0.1",
    host: "127.0.0.1",
    resourcePath: "/UA/test",
    serverCertificateManager: certificates,
    userCertificateManager: certificates,
    securityModes: [opcua.MessageSecurityMode[mode]],
    securityPolicies: [secure ? opcua.SecurityPolicy.Basic256Sha256 : opcua.SecurityPolicy.None],
    allowAnonymous: !secure,
    userManager: { isValidUser: (name, password) => name === "edge" && password === "right" },
    buildInfo: { productName: "foreign" },
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const own = space.getOwnNamespace();
  const device = own.addFolder(space.rootFolder.objects, { browseName: "device" });
  const nodes = {};
  const types = {
    flow: [DataType.Double, 0.5], count: [DataType.Int32, -7], big: [DataType.UInt64, [1, 1]],
    on: [DataType.Boolean, true], name: [DataType.String, "pump"], small: [DataType.Float, 0.25],
  };
  for (const [name, [dataType, value]] of Object.entries(types)) {
    nodes[name] = own.addVariable({
      componentOf: device, browseName: name, nodeId: `s=device.${name}`, dataType,
      accessLevel: "CurrentRead | CurrentWrite", userAccessLevel: "CurrentRead | CurrentWrite",
    });
    nodes[name].setValueFromSource({ dataType, arrayType: VariantArrayType.Scalar, value });
  }
  nodes.row = own.addVariable({
    componentOf: device, browseName: "row", nodeId: "s=device.row", dataType: DataType.Double,
    valueRank: 1, arrayDimensions: [3], accessLevel: "CurrentRead", userAccessLevel: "CurrentRead",
  });
  nodes.row.setValueFromSource({
    dataType: DataType.Double, arrayType: VariantArrayType.Array, value: new Float64Array([1, 2, 3]),
  });
  nodes.level = own.addAnalogDataItem({
    componentOf: device, browseName: "level", nodeId: "s=device.level", dataType: DataType.Double,
    accessLevel: "CurrentRead", userAccessLevel: "CurrentRead",
    engineeringUnitsRange: { low: 0, high: 10 }, engineeringUnits: opcua.makeEUInformation("MTR", "m", "metre"),
  });
  nodes.level.setValueFromSource({ dataType: DataType.Double, value: 3.5 });
  await server.start();
  console.log(JSON.stringify({ endpoint: server.getEndpointUrl(), namespace: own.namespaceUri }));

  readline.createInterface({ input: process.stdin }).on("line", async (line) => {
    const order = JSON.parse(line);
    if (order.exit) {
      await server.shutdown(0);
      process.exit(0);
    }
    const node = nodes[order.set];
    node.setValueFromSource(
      { dataType: node.readValue().value.dataType, arrayType: VariantArrayType.Scalar, value: order.value },
      StatusCodes[order.status || "Good"], new Date(order.time));
  });
}

main().catch((error) => { console.error(error); process.exit(1); });
