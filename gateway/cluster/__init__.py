"""The cluster: many gateways, the nodes, that have one log, in one stream of a Valkey server.

Invariant: a number is given to one content for as long as its epoch lasts, and what was acknowledged to the broker is
in the stream.

Keys in one slot, `NAME` being that of the cluster:

- `gateway:{NAME}:log`, a stream. An entry is what the leader's flush had: messages in a row, as they came (`entries`).
  Its id is `<number of its last message>-<n>`, and `n` is 0; entries without messages count `n` up.
- `gateway:{NAME}:meta`, a hash: who leads under which token since when, the epoch and the id at which it began, the id
  of the newest entry, and which server it was then (`views`). A server that was started again, or a replica that was
  promoted, is another one.
- `gateway:{NAME}:lease`, the token of the leader, with a time to live.
- `gateway:{NAME}:able`, there as long as a node that doesn't lead reaches the broker.
- `gateway:{NAME}:revoked`, a hash: what tokens were called back (`revoked.name_of`), with their times. Beside it the
  number under which each was told last (`…:numbers`), when each ends (`…:ends`), and the list and its last number
  (`…:version`).

`member` is what a node does, step by step, without a socket: it asks for one thing at a time and is given the answer.
`leading` is what arrives at the leader until it is in the stream, `follower` where a node is in the stream.
`revoked` is what a node knows of tokens that were called back, `recalls` how it tells and hears it.
"""
