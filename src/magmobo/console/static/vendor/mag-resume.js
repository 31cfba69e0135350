/*
 * Resume for stock pusher-js on MagMoBo. One file for browsers (`<script>`: global MagResume) and node (require, import).
 *
 *   const pusher = new Pusher(key, options)
 *   const resume = new MagResume(pusher)
 *   resume.on('gap', ({ channel, reason, refetch }) => readAgain(refetch))
 *
 * Why it works on the stock client (pusher-js 8.6): the connection emits `state_change` before `connected`, and
 * re-subscribes inside `connected`; so a hello sent from `state_change` arrives before the subscriptions. Functions bound
 * with `bind_global` run before those bound to `message`, so positions are noted even when an application's handler
 * throws, and a repeated change can be taken out of the application's sight.
 *
 * Positions (`epoch`, `serial`) come from the server and are handed back as they are. Serials of one channel and epoch
 * have one length and order as text; only repetition is judged here, what was missed is the server's to say.
 */
(function (root, factory) {
  if (typeof module === 'object' && module.exports) module.exports = factory()
  else root.MagResume = factory()
})(typeof globalThis === 'object' ? globalThis : this, function () {
  'use strict'

  const MAX_ENTRIES = 1000 // what the server takes in one hello
  const SAVE_EVERY_MS = 1000

  const isTable = (channel) => /^(private-)?db\./.test(channel)
  const isText = (value, length) => typeof value === 'string' && value.length <= length
  const isKept = (entry) => Array.isArray(entry) && isText(entry[0], 1024) && entry[1] !== null &&
    typeof entry[1] === 'object' && isText(entry[1].epoch, 1024) && isText(entry[1].serial, 1024) &&
    Number.isSafeInteger(entry[1].count) && entry[1].count >= 0 && isText(entry[1].socket ?? '', 64)
  const isOurs = (event) => /^(pusher|pusher_internal|mag):/.test(event)

  class MagResume {
    /**
     * @param pusher a pusher-js instance, connected or not
     * @param options.storage like sessionStorage: keeps positions over a page reload. A reload may then see the changes
     *   of its last second again, never miss one. A storage that is full or forbidden is done without.
     * @param options.key name in the storage
     */
    constructor(pusher, options = {}) {
      this._pusher = pusher
      this._storage = options.storage || null
      this._key = options.key || `mag-resume:${pusher.key}`
      this._listeners = { gap: [], resumed: [] }
      this._saving = null
      this._positions = new Map(this._stored())
      this._onState = (change) => this._stateChanged(change)
      this._onEvent = (name, event) => { if (name === 'message') this._message(event) }
      pusher.connection.bind('state_change', this._onState)
      pusher.connection.bind_global(this._onEvent)
      if (pusher.connection.state === 'connected') this._hello()
    }

    /** Call `listener` on 'gap' {channel, from, to, reason, refetch} or 'resumed' {channel, epoch, serial}. */
    on(event, listener) {
      if (!this._listeners[event]) throw new TypeError(`MagResume knows gap and resumed, not ${event}`)
      this._listeners[event].push(listener)
      return this
    }

    /** Position of a channel, undefined when none is known. */
    position(channel) {
      const known = this._positions.get(channel)
      return known && { ...known }
    }

    /** Do not resume this channel the next time: call it after pusher.unsubscribe(channel). */
    forget(channel) {
      this._positions.delete(channel)
      this._save()
    }

    /** Let go of the pusher instance; it goes on as a plain one. */
    stop() {
      this._pusher.connection.unbind('state_change', this._onState)
      this._pusher.connection.unbind_global(this._onEvent)
      if (this._saving) { clearTimeout(this._saving); this._write() }
    }

    _stateChanged(change) {
      if (change.current === 'connected') this._hello()
    }

    _hello() {
      // Channels in use come first, then the latest heard of; what does not fit is a gap where it is in use.
      const inUse = (channel) => (this._pusher.channel(channel) ? 1 : 0)
      const channels = [...this._positions.keys()].reverse().sort((a, b) => inUse(b) - inUse(a))
      const resume = channels.slice(0, MAX_ENTRIES).map((channel) => {
        const { epoch, serial, count, socket } = this._positions.get(channel)
        return isTable(channel) ? { channel, epoch, serial } : { channel, epoch, serial, count, socket_id: socket }
      })
      this._pusher.send_event('mag:hello', { resume })
      for (const channel of channels.slice(MAX_ENTRIES)) {
        const from = this._positions.get(channel).serial
        this.forget(channel)
        if (inUse(channel)) this._tell('gap', { channel, from, to: null, reason: 'too_many', refetch: null })
      }
    }

    _message(event) {
      const { channel, data } = event
      if (event.event === 'mag:position' || event.event === 'mag:resumed') {
        this._at(data.channel, data.epoch, data.serial)
        if (event.event === 'mag:resumed') this._tell('resumed', data)
      } else if (event.event === 'mag:gap') {
        this._positions.delete(data.channel)
        this._save()
        this._tell('gap', data)
      } else if (channel && !isOurs(event.event)) {
        if (isTable(channel)) this._change(event, channel, data)
        else this._count(channel)
      }
    }

    _change(event, channel, data) {
      if (!data || typeof data.serial !== 'string') return
      const known = this._positions.get(channel)
      if (known && known.epoch === data.epoch && data.serial <= known.serial) {
        // Seen already. The event object is shared with pusher-js, which now finds no channel to give it to.
        event.event = 'mag:repeated'
        event.channel = undefined
        return
      }
      this._at(channel, data.epoch, data.serial)
    }

    _count(channel) {
      const known = this._positions.get(channel)
      if (!known) return
      known.count += 1
      this._keep(channel, known)
    }

    _at(channel, epoch, serial) {
      this._keep(channel, { epoch, serial, count: 0, socket: this._pusher.connection.socket_id })
    }

    /** Latest last; of channels that nobody uses any more only so many are remembered. */
    _keep(channel, known) {
      this._positions.delete(channel)
      this._positions.set(channel, known)
      if (this._positions.size > MAX_ENTRIES) {
        for (const oldest of this._positions.keys()) {
          if (this._pusher.channel(oldest)) continue
          this._positions.delete(oldest)
          break
        }
      }
      this._save()
    }

    _tell(event, data) {
      for (const listener of this._listeners[event]) listener(data)
    }

    _stored() {
      if (!this._storage) return []
      try {
        const stored = JSON.parse(this._storage.getItem(this._key) || '[]')
        return Array.isArray(stored) ? stored.filter(isKept) : []
      } catch {
        return [] // somebody else's text: begin anew, the server answers with positions
      }
    }

    _save() {
      if (!this._storage || this._saving) return
      this._saving = setTimeout(() => this._write(), SAVE_EVERY_MS)
      if (this._saving.unref) this._saving.unref()
    }

    _write() {
      this._saving = null
      try {
        this._storage.setItem(this._key, JSON.stringify([...this._positions]))
      } catch {
        // full or forbidden: an older position only means more to see again
      }
    }
  }

  MagResume.MagResume = MagResume
  return MagResume
})
