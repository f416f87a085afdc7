// A foreign OPC UA server for the tests, made with node-opcua: another stack and another address space than our simulators'.
//
//   node opcua.mjs FOLDER [PORT] [LIMIT]     FOLDER takes its certificates; PORT 0 or none: a free one;
//                                            LIMIT: the most nodes and monitored items in one call, told in OperationLimits
//
// Prints one line of JSON with the endpoint, the namespace and every variable (node id, type, value, status, source time),
// then one line for each change and each event, in the order in which the server was given them: the truth. 64-bit integers
// are strings, times are ISO 8601 in UTC with milliseconds, byte strings are base64, NaN and infinities are strings.
//
// It takes commands, one JSON object a line, on standard input and ends when that closes:
//   {"set": NAME, "value": VALUE, "status": "Good", "time": ISO}   value and status of a variable; time is the source time
//   {"fire": NUMBER}                                               one CycleFinished event with that number
//   {"declare": NAME}                                              an update of the machine: its cycle event has a field NAME, a Double
//   {"run": MILLISECONDS}                                          change Counter and fire an event each so often; 0 stops
//   {"history": NAME}                                              keep a history of a variable from now on, its present value first
//   {"lose": NAME, "value": VALUE, "time": ISO}                    as set, in a notification that is sent to nobody and not kept
//   {"expire": true}                                               the lifetime of every subscription runs out

import net from 'node:net'
import readline from 'node:readline'
import {
  DataType,
  LocalizedText,
  MessageSecurityMode,
  OPCUACertificateManager,
  OPCUAServer,
  SecurityPolicy,
  StatusCodes,
  VariantArrayType,
  coerceInt64,
  coerceUInt64,
  standardUnits,
} from 'node-opcua'

const [folder, port = '0', limit = '0'] = process.argv.slice(2)
const NAMESPACE = 'urn:example:foreign:press'
const STARTED = new Date()

/** A port on which nothing listens: node-opcua wants to know it for its endpoints before it listens. */
function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const found = probe.address().port
      probe.close(() => resolve(found))
    })
  })
}

const chosen = Number(port) || (await freePort())
const certificates = (name, accept) =>
  new OPCUACertificateManager({ rootFolder: `${folder}/${name}`, automaticallyAcceptUnknownCertificate: accept })
const most = Number(limit)
const server = new OPCUAServer({
  host: '127.0.0.1',
  hostname: '127.0.0.1',
  port: chosen,
  resourcePath: '/foreign',
  buildInfo: { productName: 'Foreign press', manufacturerName: 'node-opcua', softwareVersion: '2.160.0' },
  serverInfo: { applicationUri: 'urn:example:foreign:server' },
  serverCertificateManager: certificates('server', true),
  userCertificateManager: certificates('users', true),
  securityPolicies: [SecurityPolicy.None, SecurityPolicy.Basic256Sha256],
  securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
  disableDiscovery: true,
  allowAnonymous: true,
  userManager: { isValidUser: (user, password) => user === 'operator' && password === '贯通-secret' },
  serverCapabilities: most
    ? { operationLimits: { maxNodesPerRead: most, maxMonitoredItemsPerCall: most, maxNodesPerBrowse: most } }
    : {},
})
await server.initialize()

const { addressSpace } = server.engine
const namespace = addressSpace.registerNamespace(NAMESPACE)
const press = namespace.addObject({
  organizedBy: addressSpace.rootFolder.objects,
  nodeId: 's=Press',
  browseName: 'Press',
  displayName: [new LocalizedText({ locale: 'zh', text: '外来压机' }), new LocalizedText({ locale: 'en', text: 'Foreign press' })],
  eventNotifier: 1,
})
press.addReference({ referenceType: 'HasEventSource', isForward: false, nodeId: addressSpace.rootFolder.objects.server })

const A = VariantArrayType.Array
const VARIABLES = [
  // name, node id, type, value, shape, status
  ['Boolean', 'i=1001', DataType.Boolean, true],
  ['SByte', 'i=1002', DataType.SByte, -128],
  ['Byte', 'i=1003', DataType.Byte, 255],
  ['Int16', 'i=1004', DataType.Int16, -32768],
  ['UInt16', 'i=1005', DataType.UInt16, 65535],
  ['Int32', 'i=1006', DataType.Int32, -2147483648],
  ['UInt32', 'i=1007', DataType.UInt32, 4294967295],
  ['Int64', 'i=1008', DataType.Int64, '-9223372036854775807'],
  ['UInt64', 'i=1009', DataType.UInt64, '9007199254740993'], // 2^53 + 1: not a double
  ['UInt64Max', 'i=1010', DataType.UInt64, '18446744073709551615'],
  ['Float', 'i=1011', DataType.Float, 0.1],
  ['Double', 'i=1012', DataType.Double, 0.1],
  ['DoubleNaN', 'i=1013', DataType.Double, NaN],
  ['DoubleInfinity', 'i=1014', DataType.Double, -Infinity],
  ['String', 's="Press"."油温"', DataType.String, '液压油温 42 ℃'],
  ['StringEmpty', 's=Press/Empty', DataType.String, ''],
  ['StringNull', 's=Press/Null', DataType.String, null],
  ['DateTime', 'i=1015', DataType.DateTime, new Date('2026-01-02T03:04:05.678Z')],
  ['Guid', 'g=72962B91-FA75-4AE6-8D28-B404DC7DAF63', DataType.Guid, '72962B91-FA75-4AE6-8D28-B404DC7DAF63'],
  ['ByteString', 'b=AQID', DataType.ByteString, Buffer.from([0, 1, 254, 255])],
  ['LocalizedText', 'i=1016', DataType.LocalizedText, new LocalizedText({ locale: 'zh', text: '运行' })],
  ['DoubleArray', 'i=1017', DataType.Double, [1.5, -2.25, 0, 1e300], A],
  ['Int64Array', 'i=1018', DataType.Int64, ['-1', '9007199254740993'], A],
  ['StringArray', 'i=1019', DataType.String, ['合模', 'eject', ''], A],
  ['Counter', 'i=1020', DataType.UInt32, 0],
  ['BadSensor', 'i=1021', DataType.Double, 0, undefined, 'BadSensorFailure'],
  ['UncertainSensor', 'i=1022', DataType.Double, 17.25, undefined, 'UncertainSensorNotAccurate'],
]

function raw(type, value) {
  if (Array.isArray(value)) {
    const values = value.map((one) => raw(type, one))
    return type === DataType.Double ? new Float64Array(values) : values
  }
  if (type === DataType.Int64) return coerceInt64(value)
  if (type === DataType.UInt64) return coerceUInt64(value)
  if (type === DataType.DateTime && typeof value === 'string') return new Date(value)
  if (type === DataType.ByteString && typeof value === 'string') return Buffer.from(value, 'base64')
  if ((type === DataType.Double || type === DataType.Float) && typeof value === 'string') return Number(value)
  return value
}

function shown(value) {
  if (Array.isArray(value)) return value.map(shown)
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value)
  if (Buffer.isBuffer(value)) return value.toString('base64')
  if (value instanceof Date) return value.toISOString()
  if (value instanceof LocalizedText) return { locale: value.locale, text: value.text }
  return value
}

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
const nodes = {}
const truth = {}

for (const [name, nodeId, type, value, shape = VariantArrayType.Scalar, status = 'Good'] of VARIABLES) {
  const node = namespace.addVariable({
    componentOf: press,
    nodeId,
    browseName: name,
    dataType: type,
    valueRank: shape === A ? 1 : -1,
    minimumSamplingInterval: 0, // who asks for a sampling interval of 0 gets every change, all others a sample each 50 ms or more
  })
  nodes[name] = { node, type, shape }
  set(name, value, status, STARTED)
}

// a structured value that every client knows: Range (OPC UA Part 8, 5.6.2), as the EURange of an AnalogItem
namespace.addAnalogDataItem({
  componentOf: press,
  nodeId: 'i=1030',
  browseName: 'Pressure',
  dataType: 'Double',
  engineeringUnitsRange: { low: -1, high: 400.5 },
  engineeringUnits: standardUnits.bar,
  value: { dataType: DataType.Double, value: 210.5 },
})

const cycleFinished = namespace.addEventType({ browseName: 'CycleFinishedEventType', subtypeOf: 'BaseEventType', nodeId: 'i=2001' })
const declared = []
function declare(name, dataType) {
  namespace.addVariable({
    propertyOf: cycleFinished,
    browseName: name,
    dataType,
    modellingRule: 'Mandatory',
    value: { dataType: DataType[dataType], value: dataType === 'String' ? '' : 0 },
  })
}
for (const [name, dataType] of [['CycleNumber', 'UInt32'], ['PartName', 'String'], ['CycleTime', 'Double']]) declare(name, dataType)

function set(name, value, status = 'Good', time = new Date()) {
  const { node, type, shape } = nodes[name]
  const code = StatusCodes[status]
  if (code === undefined) throw new Error(`status ${status} is not known`)
  node.setValueFromSource({ dataType: type, arrayType: shape, value: raw(type, value) }, code, time)
  truth[name] = { value: shown(type === DataType.Float ? Math.fround(value) : value), status: code.value, time: time.toISOString() }
  return truth[name]
}

function fire(number) {
  const fields = { CycleNumber: number, PartName: `零件 ${number}`, CycleTime: 12.5 + number }
  press.raiseEvent(cycleFinished, {
    message: { dataType: DataType.LocalizedText, value: new LocalizedText({ locale: 'zh', text: `第 ${number} 模完成` }) },
    severity: { dataType: DataType.UInt16, value: 100 + (number % 900) },
    cycleNumber: { dataType: DataType.UInt32, value: fields.CycleNumber },
    partName: { dataType: DataType.String, value: fields.PartName },
    cycleTime: { dataType: DataType.Double, value: fields.CycleTime },
    ...Object.fromEntries(declared.map((name) => [name[0].toLowerCase() + name.slice(1), { dataType: DataType.Double, value: number / 4 }])),
  })
  say({ event: 'CycleFinishedEventType', severity: 100 + (number % 900), message: `第 ${number} 模完成`, ...fields })
}

const subscriptions = () =>
  Object.values(server.engine._sessions).flatMap((session) => Object.values(session.publishEngine?._subscriptions ?? {}))

function keep(name) {
  const { node } = nodes[name]
  addressSpace.installHistoricalDataNode(node, { maxOnlineValues: 100_000 })
  node.varHistorian.push(node.readValue())
}

/** What is in the queues has a sequence number, and neither it nor what was sent before is there for Republish. */
function lose() {
  for (const subscription of subscriptions()) {
    for (const item of Object.values(subscription.monitoredItems)) item.queue = []
    subscription._get_next_sequence_number()
    subscription._sent_notification_messages = []
  }
}

let running
function run(milliseconds) {
  clearInterval(running)
  if (!milliseconds) return
  running = setInterval(() => {
    const next = truth.Counter.value + 1
    say({ change: 'Counter', ...set('Counter', next) })
    fire(next)
  }, milliseconds)
}

await server.start()
const index = namespace.index
say({
  port: chosen,
  endpoint: `opc.tcp://127.0.0.1:${chosen}/foreign`,
  namespace: NAMESPACE,
  user: 'operator',
  password: '贯通-secret',
  source: `ns=${index};s=Press`,
  event_type: `ns=${index};i=2001`,
  nodes: Object.fromEntries(
    Object.entries(nodes).map(([name, { node, type, shape }]) => [
      name,
      { node_id: node.nodeId.toString(), type: DataType[type], array: shape === A, ...truth[name] },
    ]),
  ),
})

const commands = readline.createInterface({ input: process.stdin })
commands.on('line', (line) => {
  const command = JSON.parse(line)
  if ('set' in command) {
    const { set: name, value, status, time } = command
    say({ change: name, ...set(name, value, status, time ? new Date(time) : undefined) })
  } else if ('lose' in command) {
    say({ change: command.lose, ...set(command.lose, command.value, 'Good', new Date(command.time)) })
    lose()
  } else if ('history' in command) keep(command.history)
  else if ('expire' in command) {
    for (const subscription of subscriptions()) subscription._life_time_counter = subscription.lifeTimeCount
  } else if ('fire' in command) fire(command.fire)
  else if ('run' in command) run(command.run)
  else if ('declare' in command) {
    declare(command.declare, 'Double')
    declared.push(command.declare)
    say({ declared: command.declare })
  }
  else throw new Error(`command ${line} is not known`)
})
commands.on('close', () => process.exit(0)) // whoever started us is gone
process.on('SIGTERM', () => server.shutdown(0).then(() => process.exit(0)))
