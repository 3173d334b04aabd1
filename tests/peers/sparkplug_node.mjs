// An edge node by Cirrus Link's sparkplug-client: node sparkplug_node.mjs URL GROUP NODE. Each line of its input is a
// JSON array: the name of a method and its arguments; it answers each with a line, and says `birth` when one is due.
import readline from 'node:readline'
import sparkplug from 'sparkplug-client'

const [serverUrl, groupId, edgeNode] = process.argv.slice(2)
const config = { serverUrl, username: '', password: '', groupId, edgeNode, clientId: edgeNode, version: 'spBv1.0' }
const client = sparkplug.newClient(config)
client.on('birth', () => console.log('birth'))
client.on('error', (error) => console.log(`error ${error}`))
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [method, ...args] = JSON.parse(line)
  client[method](...args)
  console.log('done')
}
client.stop()
