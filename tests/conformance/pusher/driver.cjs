// Stock pusher-js with MagResume, driven by lines of JSON on stdin; every event goes to stdout as a line of JSON.
const path = require('node:path')
const readline = require('node:readline')
const js = path.join(__dirname, '..', '..', '..', 'clients', 'js')
const Pusher = require(path.join(js, 'node_modules', 'pusher-js'))
const MagResume = require(path.join(js, 'mag-resume.js'))

const [key, port, authorise] = process.argv.slice(2)
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

const auths = new Map()
const pusher = new Pusher(key, {
  cluster: 'local', wsHost: '127.0.0.1', wsPort: Number(port), forceTLS: false, enabledTransports: ['ws'], disableStats: true,
  channelAuthorization: {
    customHandler: ({ socketId, channelName }, done) => {
      auths.set(channelName, (auth) => done(null, { auth }))
      say({ authorise: channelName, socket_id: socketId })
    },
  },
})
const resume = authorise === 'plain' ? null : new MagResume(pusher)
if (resume) {
  resume.on('gap', (data) => say({ gap: data }))
  resume.on('resumed', (data) => say({ resumed: data }))
}
pusher.connection.bind('state_change', ({ current }) => say({ state: current, socket_id: pusher.connection.socket_id }))
pusher.connection.bind('error', (error) => say({ error: (error.error || error).data }))

const commands = {
  subscribe({ channel }) {
    pusher.subscribe(channel).bind_global((event, data) => say({ channel, event, data }))
  },
  unsubscribe({ channel }) { pusher.unsubscribe(channel) },
  trigger({ channel, event, data }) { pusher.channel(channel).trigger(event, data) },
  auth({ channel, auth }) { auths.get(channel)(auth) },
  send({ event, data }) { pusher.send_event(event, data) },
  // As a network would: the socket dies under the library, which then reconnects by itself.
  drop() { pusher.connection.connection?.transport.socket.close() },
  disconnect() { pusher.disconnect() },
  connect() { pusher.connect() },
  position({ channel }) { say({ position: resume.position(channel) ?? null }) },
}
readline.createInterface({ input: process.stdin })
  .on('line', (line) => { const command = JSON.parse(line); commands[command.do](command) })
  .on('close', () => process.exit(0))
