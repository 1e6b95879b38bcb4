// The steps with node-postgres: its own protocol code, one query at a time, unnamed and named statements.
'use strict'

const assert = require('node:assert/strict')
const fs = require('node:fs')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { Client, Pool, Query } = require('pg')
const Cursor = require('pg-cursor')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

// node-postgres reads host, port, user, password and database from the environment, and of TLS only the mode.
function settings(more) {
  const config = { ...more }
  const mode = process.env.PGSSLMODE
  if (mode && mode !== 'disable') {
    config.ssl = { rejectUnauthorized: mode === 'verify-full' || mode === 'verify-ca' }
    if (process.env.PGSSLROOTCERT) config.ssl.ca = fs.readFileSync(process.env.PGSSLROOTCERT)
    if (process.env.PGSSLCERT) config.ssl.cert = fs.readFileSync(process.env.PGSSLCERT)
    if (process.env.PGSSLKEY) config.ssl.key = fs.readFileSync(process.env.PGSSLKEY)
  }
  return config
}

async function open(more) {
  const client = new Client(settings(more))
  client.on('error', () => {}) // an error between queries ends the client; the next query says so
  await client.connect()
  return client
}

let client

async function fails(code, promise) {
  const error = await promise.then(() => null, (e) => e)
  assert.ok(error, `no error, want ${code}`)
  assert.equal(error.code, code, String(error))
  return error
}

// untilAsleep returns once the server is in pg_sleep in the session of that process id.
async function untilAsleep(pid) {
  const other = await open()
  for (let asleep = false; !asleep; ) {
    const { rows } = await other.query('select wait_event from pg_stat_activity where pid = $1', [pid])
    asleep = rows[0]?.wait_event === 'PgSleep'
  }
  await other.end()
}

// access has the account's access ended ("end") or given back ("renew").
async function access(what) {
  const answer = await fetch(process.env.CONFORMANCE_ACCESS + '/' + what, { method: 'POST' })
  assert.ok(answer.ok, await answer.text())
}

const steps = {
  async connect() {
    client = await open()
    const { rows } = await client.query('select pg_backend_pid() as pid, current_user as who, current_database() as db')
    assert.deepEqual(rows[0], { pid: client.processID, who: process.env.PGUSER, db: process.env.PGDATABASE })
  },
  async simple() {
    const several = await client.query("select 1 as a; select 2 as b; create temp table s (i int); insert into s values (1), (2)")
    assert.deepEqual(several.map((r) => r.command), ['SELECT', 'SELECT', 'CREATE', 'INSERT'])
    assert.equal(several[3].rowCount, 2)
    await client.query('')
  },
  async prepared() {
    for (let i = 0; i < 50; i++) {
      const { rows } = await client.query({ name: 'doubled', text: 'select $1::int * 2 as n', values: [i] })
      assert.equal(rows[0].n, i * 2)
    }
  },
  async binary() {
    const value = Buffer.alloc(1 << 20, Buffer.from([...Array(256).keys()]))
    const { rows } = await client.query('select $1::bytea as b, $2::text as t', [value, "it's \\ é中"])
    assert.ok(rows[0].b.equals(value))
    assert.equal(rows[0].t, "it's \\ é中")
    // The driver reads few types in binary, and a fraction wrongly.
    const numbers = await client.query({ text: 'select $1::int4 as n, $2::bool as b', values: [7, true], binary: true })
    assert.deepEqual(numbers.rows[0], { n: 7, b: true })
  },
  async batch() {
    await client.query('create temp table batched (i int, t text)')
    await Promise.all([...Array(1000).keys()].map((i) => client.query('insert into batched values ($1, $2)', [i, String(i)])))
    const { rows } = await client.query('select count(*)::int as n from batched')
    assert.equal(rows[0].n, 1000)
  },
  async 'batch-error'() {
    const settled = await Promise.allSettled([1, 0, 2].map((i) => client.query('select 1 / $1::int as n', [i])))
    assert.deepEqual(settled.map((s) => s.status), ['fulfilled', 'rejected', 'fulfilled'])
    assert.equal(settled[1].reason.code, '22012')
  },
  async 'copy-in-and-out'() {
    await client.query('create temp table copied (i int, t text)')
    const lines = [...Array(20000).keys()].map((i) => `${i}\trow ${i} \\\\ é\n`)
    const into = client.query(copyFrom('copy copied from stdin'))
    await pipeline(Readable.from(lines), into)
    assert.equal(into.rowCount, 20000)
    const chunks = []
    const out = client.query(copyTo('copy (select * from copied order by i) to stdout'))
    for await (const chunk of out) chunks.push(chunk)
    assert.equal(Buffer.concat(chunks).toString(), lines.join(''))
  },
  async 'copy-error'() {
    const into = client.query(copyFrom('copy copied from stdin'))
    const error = await pipeline(Readable.from(['1\ta\nx\tb\n', ...Array(2000).fill('2\tc\n'.repeat(50))]), into).then(() => null, (e) => e)
    assert.equal(error?.code, '22P02')
    const { rows } = await client.query('select count(*)::int as n from copied')
    assert.equal(rows[0].n, 20000)
  },
  async cursor() {
    const cursor = client.query(new Cursor('select i from generate_series(1, $1) i', [1000]))
    let sum = 0
    for (let rows = await cursor.read(70); rows.length > 0; rows = await cursor.read(70)) for (const row of rows) sum += row.i
    await cursor.close()
    assert.equal(sum, 500500)
  },
  async notify() {
    const got = new Promise((resolve, reject) => {
      client.once('notification', resolve)
      setTimeout(() => reject(new Error('no notification within ten seconds')), 10000).unref()
    })
    await client.query('listen conformance')
    const other = await open()
    await other.query("notify conformance, 'hello'")
    const { processId, channel, payload } = await got
    assert.deepEqual({ processId, channel, payload }, { processId: other.processID, channel: 'conformance', payload: 'hello' })
    await other.end()
  },
  async notice() {
    const seen = []
    const see = (notice) => seen.push(notice.message)
    client.on('notice', see)
    await client.query("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
    client.off('notice', see)
    assert.deepEqual(seen, ['one', 'two'])
  },
  async cancel() {
    const query = new Query('select pg_sleep(30)')
    const ended = new Promise((resolve) => query.once('error', resolve))
    client.query(query)
    await untilAsleep(client.processID)
    // The driver sends a cancel on a new connection, in clear text whatever the first one used.
    const second = new Client()
    second.cancel(client, query)
    const late = setTimeout(() => { throw new Error('not cancelled within ten seconds') }, 10000)
    assert.equal((await ended).code, '57014')
    clearTimeout(late)
    assert.equal((await client.query('select 1 as n')).rows[0].n, 1)
  },
  async 'big-values'() {
    const value = '0123456789abcdef'.repeat(1 << 20)
    const { rows } = await client.query("select length($1) as n, repeat('x', 32 << 20) as big", [value])
    assert.deepEqual([rows[0].n, rows[0].big.length], [value.length, 32 << 20])
  },
  async 'many-rows'() {
    const { rows } = await client.query('select i, md5(i::text) from generate_series(1, 100000) i')
    assert.equal(rows.reduce((sum, row) => sum + row.i, 0), 5000050000)
  },
  async error() {
    await client.query('create temp table once (i int constraint only_once primary key)')
    await client.query('insert into once values (1)')
    const twice = await fails('23505', client.query('insert into once values ($1)', [1]))
    assert.deepEqual([twice.constraint, twice.detail], ['only_once', 'Key (i)=(1) already exists.'])
    assert.equal((await fails('42703', client.query('select nonsense'))).position, '8')
  },
  async transaction() {
    await client.query('create temp table t (i int)')
    await client.query('begin')
    await client.query('insert into t values (1)')
    await fails('22012', client.query('select 1/0'))
    await fails('25P02', client.query('select 1'))
    await client.query('rollback')
    assert.equal((await client.query('select count(*)::int as n from t')).rows[0].n, 0)
  },
  async 'startup-options'() {
    const other = await open({ application_name: 'conformance of node', statement_timeout: 12345, options: '-c work_mem=7MB' })
    const { rows } = await other.query("select current_setting('application_name') a, current_setting('statement_timeout') s, current_setting('work_mem') w")
    await other.end()
    assert.deepEqual(rows[0], { a: 'conformance of node', s: '12345ms', w: '7MB' })
  },
  async pool() {
    const pool = new Pool(settings({ max: 10 }))
    const results = await Promise.all([...Array(200).keys()].map((i) => pool.query('select $1::int as i from pg_sleep(0.01)', [i])))
    await pool.end()
    assert.deepEqual(results.map((r) => r.rows[0].i), [...Array(200).keys()])
  },
  async 'no-such-database'() {
    await fails('3D000', open({ database: 'conformance_nowhere' }))
  },
  async terminated() {
    const other = await open()
    const asleep = fails('57P01', other.query('select pg_sleep(30)'))
    await untilAsleep(other.processID)
    await client.query('select pg_terminate_backend($1)', [other.processID])
    await asleep
  },
  async 'access-ends-and-is-renewed'() {
    const pool = new Pool(settings({ max: 4 }))
    pool.on('error', () => {}) // a connection that broke while nobody used it; the pool throws it away
    // Uses all of the pool's connections at the same time and gives their process ids.
    const useAtOnce = async () => {
      const clients = await Promise.all([1, 2, 3, 4].map(() => pool.connect()))
      for (const c of clients) await c.query('select 1')
      const pids = new Set(clients.map((c) => c.processID))
      for (const c of clients) c.release()
      assert.equal(pids.size, 4)
      return pids
    }
    const before = await useAtOnce()
    const busy = await pool.connect()
    busy.on('error', () => {})
    const asleep = fails('57P01', busy.query('select pg_sleep(60)'))
    await untilAsleep(busy.processID)
    await access('end')
    await asleep
    busy.release(true)
    let refused = 0
    for (let i = 0; i < 5; i++) {
      const error = await pool.query('select 1').then(() => null, (e) => e)
      assert.ok(error, 'the pool works without access')
      if (error.code === '28000') refused++
    }
    assert.ok(refused > 0, 'nobody was refused')
    await access('renew')
    assert.equal((await pool.query('select 1 as n')).rows[0].n, 1)
    for (const pid of await useAtOnce()) assert.ok(!before.has(pid))
    await pool.end()
  },
}

async function main() {
  for (const [name, step] of Object.entries(steps)) {
    try {
      await step()
      console.log(`ok ${name}`)
    } catch (error) {
      console.error(error)
      console.log(`not ok ${name}: ${String(error.message).replace(/\s+/g, ' ').slice(0, 500)}`)
    }
  }
  await client.end().catch(() => {}) // the last step had it ended
}

main()
