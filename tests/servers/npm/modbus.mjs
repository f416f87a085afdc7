// A foreign Modbus TCP server for the tests, made with the npm package modbus-serial: several units behind one address.
//
//   node modbus.mjs PORT
//
// Prints one line of JSON with the units and how they behave, then one line for each answer: the truth.
//   unit 1, 2      a holding register at address a holds (1000 * unit + a) mod 65536, an input register the same plus 500,
//                  a coil is on where (unit + a) mod 3 is 0, a discrete input where (unit + a) mod 5 is 0;
//                  addresses 50 to 59 are a hole: exception 2; holding register 90 says how often it has been read
//   unit 3         answers the same way, 300 ms late
//   unit 4         is busy: exception 6 to everything
//   any other      never answers
// Registers and coils can be written; what was written is held. It ends when its standard input closes.

import { ServerTCP } from 'modbus-serial'

const port = Number(process.argv[2])
const HOLE = [50, 59]
const SLOW_MS = 300
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`)
const written = new Map()

const TABLES = {
  holding: (unit, address) => (1000 * unit + address) % 65536,
  input: (unit, address) => (1000 * unit + address + 500) % 65536,
  coil: (unit, address) => (unit + address) % 3 === 0,
  discrete: (unit, address) => (unit + address) % 5 === 0,
}

const reads = new Map()

function held(table, unit, address) {
  if (table === 'holding' && address === 90) {
    reads.set(unit, (reads.get(unit) ?? 0) + 1)
    return reads.get(unit) % 65536
  }
  return written.get(`${table} ${unit} ${address}`) ?? TABLES[table](unit, address)
}

/** What a unit does with a request, then `answer`, which may be never. */
function behave(unit, address, count, answer) {
  if (unit === 4) return answer({ modbusErrorCode: 6 })
  if (unit < 1 || unit > 4) return
  if (address <= HOLE[1] && address + count > HOLE[0]) return answer({ modbusErrorCode: 2 })
  if (unit === 3) return setTimeout(answer, SLOW_MS, null)
  answer(null)
}

function read(table, address, count, unit, done) {
  behave(unit, address, count, (error) => {
    const values = error ? [] : Array.from({ length: count }, (_, i) => held(table, unit, address + i))
    say({ time: Date.now() * 1000, unit, table, address, count, ...(error ? { exception: error.modbusErrorCode } : { values }) })
    done(error, values)
  })
}

function write(table, address, value, unit, done) {
  behave(unit, address, 1, (error) => {
    if (!error) written.set(`${table} ${unit} ${address}`, value)
    say({ time: Date.now() * 1000, unit, table, address, write: value, ...(error ? { exception: error.modbusErrorCode } : {}) })
    done(error)
  })
}

const one = (table) => (address, unit, done) => read(table, address, 1, unit, (error, values) => done(error, values[0]))

const vector = {
  // the library asks for bits one by one, and for a register that is alone
  getCoil: one('coil'),
  getDiscreteInput: one('discrete'),
  getHoldingRegister: one('holding'),
  getInputRegister: one('input'),
  getMultipleHoldingRegisters: (address, count, unit, done) => read('holding', address, count, unit, done),
  getMultipleInputRegisters: (address, count, unit, done) => read('input', address, count, unit, done),
  setCoil: (address, value, unit, done) => write('coil', address, value, unit, done),
  setRegister: (address, value, unit, done) => write('holding', address, value, unit, done),
}

const server = new ServerTCP(vector, { host: '127.0.0.1', port, unitID: 255 }) // 255: every unit comes to us
server.on('initialized', () => say({ port, units: [1, 2, 3, 4], slow: 3, busy: 4, slow_ms: SLOW_MS, hole: HOLE }))
server.on('socketError', () => {}) // a client that goes away is no news
server.on('serverError', (error) => {
  console.error(`cannot listen on 127.0.0.1:${port}: ${error.message}`)
  process.exit(1)
})
process.stdin.on('end', () => process.exit(0))
process.stdin.on('close', () => process.exit(0))
process.stdin.resume()
