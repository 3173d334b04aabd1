// Aedes on a port of loopback: node aedes.mjs PORT RULES. It speaks MQTT 3.1.1 only and, as that says it may, closes the
// connection over what its rules forbid. RULES is a JSON object; each member may be absent:
//   publish, subscribe  beginnings of topics and of filters that are forbidden
//   will, retain        true: no last will; nothing retained
//   qos                 the highest QoS of what is published and subscribed to, the will included
import net from 'node:net'
import { Aedes } from 'aedes'

const rules = JSON.parse(process.argv[3] ?? '{}')
const begins = (beginnings, text) => (beginnings ?? []).some((each) => text.startsWith(each))
const isTooMuch = (packet) => packet.qos > (rules.qos ?? 2) || (packet.retain && rules.retain)

const broker = await Aedes.createBroker({
  preConnect(_client, packet, done) {
    const refused = packet.will && (rules.will || isTooMuch(packet.will))
    done(refused ? new Error('this will is forbidden') : null, !refused)
  },
  authorizePublish(_client, packet, done) {
    done(begins(rules.publish, packet.topic) || isTooMuch(packet) ? new Error('forbidden') : null)
  },
  authorizeSubscribe(_client, subscription, done) {
    const refused = begins(rules.subscribe, subscription.topic) || subscription.qos > (rules.qos ?? 2)
    done(refused ? new Error('forbidden') : null, subscription)
  },
})
broker.on('clientError', () => {})
broker.on('connectionError', () => {})
net.createServer(broker.handle).listen(Number(process.argv[2]), '127.0.0.1')
