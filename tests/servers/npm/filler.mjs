// A stranger's OPC UA server, made with node-opcua: a filling machine whose address space nobody here has seen before.
//
//   node filler.mjs FOLDER HOST PORT     FOLDER takes its certificates
//
// Prints one line of JSON with its endpoint and variables, then one line for each change: the truth. It works by itself, a change of
// each value every half a second, and ends when its standard input closes.

import {
  DataType,
  LocalizedText,
  MessageSecurityMode,
  OPCUACertificateManager,
  OPCUAServer,
  SecurityPolicy,
  StatusCodes,
  standardUnits,
} from 'node-opcua'

const [folder, host, port] = process.argv.slice(2)
const NAMESPACE = 'http://filler.example/line'
const certificates = (name) => new OPCUACertificateManager({ rootFolder: `${folder}/${name}`, automaticallyAcceptUnknownCertificate: true })
const server = new OPCUAServer({
  host,
  hostname: host,
  port: Number(port),
  resourcePath: '/',
  buildInfo: { productName: 'Filler 8', manufacturerName: 'Example Filling', softwareVersion: '8.1' },
  serverInfo: { applicationUri: 'urn:example:filler', applicationName: { text: 'Filler 8' } },
  serverCertificateManager: certificates('server'),
  userCertificateManager: certificates('users'),
  securityPolicies: [SecurityPolicy.None, SecurityPolicy.Basic256Sha256],
  securityModes: [MessageSecurityMode.None, MessageSecurityMode.SignAndEncrypt],
  disableDiscovery: true,
  allowAnonymous: true,
})
await server.initialize()

const { addressSpace } = server.engine
const namespace = addressSpace.registerNamespace(NAMESPACE)
const text = (zh, en) => [new LocalizedText({ locale: 'en', text: en }), new LocalizedText({ locale: 'zh', text: zh })]
const folderOf = (parent, name, zh) =>
  namespace.addObject({ [parent ? 'componentOf' : 'organizedBy']: parent ?? addressSpace.rootFolder.objects, browseName: name, nodeId: `s=${name}`, displayName: text(zh, name) })

const line = folderOf(null, 'FillingLine', '灌装线')
const tank = folderOf(line, 'ProductTank', '料罐')
const filler = folderOf(line, 'Filler', '灌装机')
const { degree_celsius, bar, percent, hertz } = standardUnits

// name, parent, node id, type, unit, [low, high], the value after `n` half seconds
const VARIABLES = [
  ['Temperature', tank, 's=Tank.T01', DataType.Double, degree_celsius, [0, 120], (n) => 63.5 + Math.round(40 * Math.sin(n / 20)) / 10],
  ['Pressure', tank, 's=Tank.P01', DataType.Float, bar, [0, 10], (n) => 2 + Math.round(8 * Math.cos(n / 15)) / 16],
  ['Level', tank, 's=Tank.L01', DataType.Int16, percent, [0, 100], (n) => 50 + Math.round(30 * Math.sin(n / 40))],
  ['BottlesTotal', filler, 'i=5001', DataType.UInt32, null, null, (n) => 120000 + n],
  ['BottlesRejected', filler, 'i=5002', DataType.UInt32, null, null, (n) => 310 + Math.floor(n / 50)],
  ['Speed', filler, 'i=5003', DataType.Float, hertz, [0, 60], (n) => 41 + (n % 4) / 4],
  ['Running', filler, 'i=5004', DataType.Boolean, null, null, (n) => n % 60 !== 59],
  ['Recipe', filler, 'i=5005', DataType.String, null, null, () => '绿茶 500 ml'],
]

const say = (told) => process.stdout.write(`${JSON.stringify(told)}\n`)
const nodes = {}
for (const [name, parent, nodeId, dataType, unit, range, course] of VARIABLES) {
  const how = { componentOf: parent, browseName: name, nodeId, dataType, minimumSamplingInterval: 0 }
  const node =
    unit === null
      ? namespace.addVariable(how)
      : namespace.addAnalogDataItem({ ...how, engineeringUnits: unit, engineeringUnitsRange: { low: range[0], high: range[1] } })
  nodes[name] = { node, dataType, course, last: undefined }
}

function change(n) {
  const time = new Date()
  for (const [name, item] of Object.entries(nodes)) {
    const value = item.course(n)
    if (value === item.last) continue
    item.last = value
    item.node.setValueFromSource({ dataType: item.dataType, value }, StatusCodes.Good, time)
    if (n > 0) say({ change: name, value, time: time.toISOString() })
  }
}

let passed = 0
change(passed)
await server.start()
say({
  endpoint: `opc.tcp://${host}:${port}`,
  namespace: NAMESPACE,
  nodes: Object.fromEntries(Object.entries(nodes).map(([name, { node, dataType, last }]) => [name, { node_id: node.nodeId.toString(), type: DataType[dataType], value: last }])),
})
setInterval(() => change((passed += 1)), 500)
process.stdin.on('end', () => process.exit(0))
process.stdin.on('close', () => process.exit(0))
process.stdin.resume()
