// A foreign OPC UA server for the tests of reading, made with node-opcua: many variables, structures, alarms, nodes that come and go.
//
//   node reading.mjs FOLDER PORT COUNT     FOLDER takes its certificates; COUNT variables i=10000 and up
//
// Prints one line of JSON with the endpoint and the namespaces, then `{"done": …}` for each command. It takes commands, one JSON object a
// line, on standard input and ends when that closes:
//   {"bulk": VALUE}                    writes VALUE + number to each of the many variables
//   {"value": VALUE}                   writes the variable Level (i=1), which an exclusive limit alarm watches: 10, 20 low; 80, 90 high
//   {"shot": {…}}                      writes the structure (i=2)
//   {"remove": true}                   deletes the variable Part (i=3)
//   {"add": TYPE, "initial": VALUE}    makes it again, with this type
//   {"readable": BOOLEAN}              access to the variable Secret (i=4)
//   {"mode": VALUE}                    writes the enumeration (i=5)
//   {"retire": true}                   takes the alarm back without an event: nobody is told that it has ended

import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath } from 'node:url'
import {
  DataType, LocalizedText, MessageSecurityMode, OPCUACertificateManager, OPCUAServer, SecurityPolicy, StatusCodes,
  VariantArrayType, coerceUInt64, nodesets,
} from 'node-opcua'

const [folder, port, count] = process.argv.slice(2)
const here = path.dirname(fileURLToPath(import.meta.url))
const certificates = (name) =>
  new OPCUACertificateManager({ rootFolder: `${folder}/${name}`, automaticallyAcceptUnknownCertificate: true })
const server = new OPCUAServer({
  host: '127.0.0.1',
  hostname: '127.0.0.1',
  port: Number(port),
  resourcePath: '/reading',
  nodeset_filename: [nodesets.standard, `${here}/press.NodeSet2.xml`],
  serverInfo: { applicationUri: 'urn:example:foreign:reading' },
  serverCertificateManager: certificates('server'),
  userCertificateManager: certificates('users'),
  securityPolicies: [SecurityPolicy.None],
  securityModes: [MessageSecurityMode.None],
  disableDiscovery: true,
  allowAnonymous: true,
})
await server.initialize()
const { addressSpace } = server.engine
addressSpace.installAlarmsAndConditionsService()
const types = addressSpace.getNamespaceIndex('urn:example:foreign:types')
const namespace = addressSpace.registerNamespace('urn:example:foreign:reading')
const press = namespace.addObject({
  organizedBy: addressSpace.rootFolder.objects, nodeId: 's=Press', browseName: 'Press', eventSourceOf: addressSpace.rootFolder.objects.server,
})

const add = (nodeId, browseName, dataType, value, more = {}) =>
  namespace.addVariable({
    componentOf: press, nodeId, browseName, dataType, minimumSamplingInterval: 0, value: { dataType: more.as ?? dataType, ...more.shape, value }, ...more.options,
  })

const level = add('i=1', 'Level', DataType.Double, 50)
const shotType = addressSpace.findDataType('Shot', types)
const shots = (told) =>
  addressSpace.constructExtensionObject(shotType, {
    number: coerceUInt64(told.number),
    mode: told.mode,
    zones: told.zones.map((zone) => ({ name: zone.name, temperature: zone.temperature, since: new Date(zone.since) })),
    outcome: told.outcome,
    range: told.range,
    ...(told.weight === undefined ? {} : { weight: told.weight }),
    ...(told.remark === undefined ? {} : { remark: new LocalizedText(told.remark) }),
  })
const FIRST = { number: '1', mode: 1, zones: [], outcome: { good: true }, range: { low: 0, high: 1 } }
const shot = namespace.addVariable({
  componentOf: press, nodeId: 'i=2', browseName: 'Shot', dataType: shotType, minimumSamplingInterval: 0,
  value: { dataType: DataType.ExtensionObject, value: shots(FIRST) },
})
let part = add('i=3', 'Part', DataType.Int32, 1)
const secret = add('i=4', 'Secret', DataType.Int32, 7)
const mode = namespace.addVariable({
  componentOf: press, nodeId: 'i=5', browseName: 'Mode', dataType: addressSpace.findDataType('Mode', types), minimumSamplingInterval: 0,
  value: { dataType: DataType.Int32, value: 1 },
})
namespace.addVariable({
  componentOf: press, nodeId: 'i=6', browseName: 'Grid', dataType: DataType.Double, valueRank: 2, arrayDimensions: [2, 3],
  value: { dataType: DataType.Double, arrayType: VariantArrayType.Matrix, dimensions: [2, 3], value: new Float64Array([1, 2, 3, 4, 5, 6]) },
})
namespace.addMultiStateDiscrete({ componentOf: press, nodeId: 'i=7', browseName: 'Lamp', enumStrings: ['off', 'on', 'blink'], value: 2 })

let bulk // a folder for each hundred: node-opcua looks through all siblings of a new node
const many = []
for (let i = 0; i < Number(count); i++) {
  if (i % 100 === 0) bulk = namespace.addFolder(addressSpace.rootFolder.objects, { nodeId: `s=Bulk${i / 100}`, browseName: `Bulk${i / 100}` })
  many.push(
    namespace.addVariable({
      organizedBy: bulk, nodeId: `i=${10000 + i}`, browseName: `b${i}`, dataType: DataType.UInt32, minimumSamplingInterval: 0,
      value: { dataType: DataType.UInt32, value: i },
    }),
  )
}
const alarm = namespace.instantiateExclusiveLimitAlarm('ExclusiveLimitAlarmType', {
  nodeId: 's=LevelAlarm', browseName: 'LevelAlarm', conditionSource: press, conditionName: 'Level', inputNode: level,
  optionals: ['ConfirmedState', 'Confirm'], lowLowLimit: 10, lowLimit: 20, highLimit: 80, highHighLimit: 90,
})
alarm.setEnabledState?.(true)

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
await server.start()
say({ endpoint: `opc.tcp://127.0.0.1:${port}/reading`, namespace: namespace.namespaceUri, index: namespace.index, alarm: alarm.nodeId.toString() })

const commands = readline.createInterface({ input: process.stdin })
commands.on('line', (line) => {
  const command = JSON.parse(line)
  const [what] = Object.keys(command)
  const given = command[what]
  if (what === 'bulk') many.forEach((node, i) => node.setValueFromSource({ dataType: DataType.UInt32, value: given + i }))
  else if (what === 'value') level.setValueFromSource({ dataType: DataType.Double, value: given })
  else if (what === 'shot') shot.setValueFromSource({ dataType: DataType.ExtensionObject, value: shots(given) })
  else if (what === 'remove') addressSpace.deleteNode(part)
  else if (what === 'add') part = add('i=3', 'Part', DataType[given], command.initial)
  else if (what === 'readable') {
    secret.accessLevel = given ? 3 : 0
    secret.userAccessLevel = given ? 3 : 0
    secret.setValueFromSource({ dataType: DataType.Int32, value: given ? 8 : 7 }, given ? StatusCodes.Good : StatusCodes.BadUserAccessDenied)
  } else if (what === 'mode') mode.setValueFromSource({ dataType: DataType.Int32, value: given })
  else if (what === 'retire') alarm.currentBranch().setRetain(false)
  else throw new Error(`command ${line} is not known`)
  say({ done: what })
})
commands.on('close', () => process.exit(0)) // whoever started us is gone
process.on('SIGTERM', () => server.shutdown(0).then(() => process.exit(0)))
