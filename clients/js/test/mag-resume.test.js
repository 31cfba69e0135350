// MagResume on a stock pusher-js instance whose messages this file plays. What the server does is tested from Python.
const assert = require('node:assert')
const { test, after } = require('node:test')
const Pusher = require('pusher-js')
const MagResume = require('../mag-resume.js')

const made = []

function client(options) {
  const pusher = new Pusher('key', { cluster: 'local', wsHost: '127.0.0.1', wsPort: 9, forceTLS: false, enabledTransports: ['ws'] })
  pusher.disconnect()
  const sent = []
  pusher.send_event = (event, data) => sent.push({ event, data })
  const resume = new MagResume(pusher, options)
  made.push({ pusher, resume })
  return {
    pusher, resume, sent,
    play: (event, data, channel) => pusher.connection.emit('message', { event, data, channel }),
    connect: (socketId) => {
      pusher.connection.socket_id = socketId
      pusher.connection.emit('state_change', { previous: 'connecting', current: 'connected' })
    },
  }
}

after(() => { for (const { pusher, resume } of made) { resume.stop(); pusher.disconnect() } })

test('positions of tables come from changes and are named in the next hello', () => {
  const c = client()
  c.connect('1.1')
  c.play('mag:position', { channel: 'db.public.t', epoch: 'e', serial: '01' })
  c.play('insert', { epoch: 'e', serial: '02', record: { id: 1 } }, 'db.public.t')
  c.connect('2.2')
  assert.deepStrictEqual(c.sent, [
    { event: 'mag:hello', data: { resume: [] } },
    { event: 'mag:hello', data: { resume: [{ channel: 'db.public.t', epoch: 'e', serial: '02' }] } },
  ])
})

test('a repeated change never reaches the application, one of another epoch does', () => {
  const c = client()
  const seen = []
  c.pusher.subscribe('db.public.t').bind('insert', (data) => seen.push(data.epoch + data.serial))
  for (const [epoch, serial] of [['e', '02'], ['e', '02'], ['e', '01'], ['e', '03'], ['f', '01']]) {
    c.play('insert', { epoch, serial }, 'db.public.t')
  }
  assert.deepStrictEqual(seen, ['e02', 'e03', 'f01'])
})

test('a handler that throws does not lose the position', () => {
  const c = client()
  c.pusher.subscribe('db.public.t').bind('insert', () => { throw new Error('on purpose') })
  assert.throws(() => c.play('insert', { epoch: 'e', serial: '02' }, 'db.public.t'))
  assert.strictEqual(c.resume.position('db.public.t').serial, '02')
})

test('ordinary channels count what came after the last position, and name the former socket', () => {
  const c = client()
  c.connect('1.1')
  c.play('said', {}, 'room')
  c.play('mag:position', { channel: 'room', epoch: 'e', serial: '05' })
  c.play('said', {}, 'room')
  c.play('client-typing', {}, 'room')
  c.play('pusher:subscription_count', { subscription_count: 2 }, 'room')
  c.connect('2.2')
  assert.deepStrictEqual(c.sent[1].data.resume, [{ channel: 'room', epoch: 'e', serial: '05', count: 2, socket_id: '1.1' }])
})

test('gaps and resumptions are told; after a gap the next position counts', () => {
  const c = client()
  const told = []
  c.resume.on('gap', (gap) => told.push(gap.reason)).on('resumed', (where) => told.push(where.serial))
  c.play('mag:position', { channel: 'db.public.t', epoch: 'e', serial: '09' })
  c.play('mag:gap', { channel: 'db.public.t', from: '09', to: '03', reason: 'epoch_changed', refetch: null })
  assert.strictEqual(c.resume.position('db.public.t'), undefined)
  c.play('mag:position', { channel: 'db.public.t', epoch: 'f', serial: '03' })
  c.play('mag:resumed', { channel: 'db.public.t', epoch: 'f', serial: '04' })
  assert.deepStrictEqual(told, ['epoch_changed', '04'])
  assert.throws(() => c.resume.on('other', () => {}), TypeError)
})

test('positions survive in a storage, and rubbish in it is ignored', () => {
  const kept = new Map()
  const storage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) }
  const c = client({ storage })
  c.play('mag:position', { channel: 'db.public.t', epoch: 'e', serial: '01' })
  c.resume.stop()
  const again = client({ storage })
  assert.deepStrictEqual(again.resume.position('db.public.t').serial, '01')
  kept.set('mag-resume:key', '{')
  assert.strictEqual(client({ storage }).resume.position('db.public.t'), undefined)
})

test('what a storage holds is checked entry by entry, and one that throws is done without', () => {
  const good = ['db.public.t', { epoch: 'e', serial: '01', count: 0, socket: '1.1' }]
  const bad = [1, null, [], ['x'], ['x', null], ['x', {}], [7, good[1]], ['x', { ...good[1], serial: 3 }],
    ['x', { ...good[1], epoch: 'e'.repeat(2000) }], ['x', { ...good[1], count: -1 }], ['x'.repeat(2000), good[1]]]
  const full = { getItem: () => JSON.stringify([...bad, good]), setItem: () => { throw new Error('full') } }
  const c = client({ storage: full })
  c.connect('1.1')
  assert.deepStrictEqual(c.sent[0].data.resume, [{ channel: 'db.public.t', epoch: 'e', serial: '01' }])
  c.play('insert', { epoch: 'e', serial: '02' }, 'db.public.t')
  c.resume.stop()
})

test('channels in use are resumed before those of old, which do not pile up', () => {
  const c = client()
  c.pusher.subscribe('db.public.used')
  c.play('mag:position', { channel: 'db.public.used', epoch: 'e', serial: '01' })
  for (let n = 0; n < 3000; n++) c.play('mag:position', { channel: `db.public.t;id=${n}`, epoch: 'e', serial: '02' })
  c.connect('1.1')
  const { resume } = c.sent[0].data
  assert.strictEqual(resume.length, 1000)
  assert.deepStrictEqual(resume.slice(0, 2).map((entry) => entry.channel), ['db.public.used', 'db.public.t;id=2999'])
  assert.strictEqual(c.resume.position('db.public.t;id=5'), undefined)
})

test('more channels in use than a hello may name are told as gaps', () => {
  const c = client()
  const gaps = []
  c.resume.on('gap', ({ channel, reason }) => gaps.push(channel + reason))
  for (let n = 0; n < 1002; n++) {
    c.pusher.subscribe(`db.public.t;id=${n}`)
    c.play('mag:position', { channel: `db.public.t;id=${n}`, epoch: 'e', serial: '02' })
  }
  c.connect('1.1')
  assert.deepStrictEqual(gaps, ['db.public.t;id=1too_many', 'db.public.t;id=0too_many'])
})

test('one file for require, import and <script>', async () => {
  const imported = await import('../mag-resume.js')
  assert.strictEqual(imported.default, MagResume)
  const source = require('node:fs').readFileSync(require.resolve('../mag-resume.js'), 'utf8')
  const page = {}
  require('node:vm').runInNewContext(`var globalThis = this; ${source}`, page)
  assert.strictEqual(typeof page.MagResume, 'function')
})
