"""The archive: history that survives the process, in one SQLite file.

Invariant: what the file has is what live subscribers got, number by number, and what it has not is listed as a hole.
Memory stays the log that replays are read from; the file is asked only for what memory has let go.

The file (`file`), schema version 2, SQLite in WAL mode, each commit synced:

- `blocks`: messages in a row, compressed, about a second's worth to a row: `first_seq` (the key), `last_seq`,
  `min_time`, `max_time`, `topics` (the ids of the topics in it), `data` (the messages, column by column), `count` (how
  many of its messages are left, where some were taken). Never a row for a message. `blocks` (the module) makes and
  reads both byte strings; it is pure.
- `topics`: an id for each topic name, given when it is first written.
- `steps`: first numbers behind which the clock had been set back, so that times rise between two of them.
- `holes`: stretches of numbers of which the file has no message, and why (`crash`, `overload`, `lost`, `away`).
- `snapshot`: what memory knew of each topic as of a number: last value, count, what the broker retains. What came after
  that number is in the blocks.
- `thinned`: how far each rule of retention came, by level, and up to where it had something to take.
- `series`, `slabs`, `chunks`: roll-ups (`rollup_rows`).
- `meta`: `epoch`, `shared` (1: numbers and epoch are those of a log that others write, too), `reserved` (no number
  beyond it was ever given), `end` (only after an orderly end: the last number given), `snapshot` (the number that it is
  as of), `rolled` (that up to which roll-ups are in the file), `joined` (that up to which small blocks were joined),
  `keep` (the rules of retention), `since_minute` and `since_hour` (times before which roll-ups may be missing, rules
  apart).

One thread writes (`writer`), one reads (`reader`), each with a connection of its own; the loop talks to them by queues
and never waits for a disk. `archive` puts them together, and is all that the rest of the gateway sees.

Roll-ups (`rollups`, `rollup_rows`) are made of what is written, in the same thread: with the block where there is time,
else later of the block (`ArchiveFile.do_chore`). So they never hold up what waits for the disk.

Beyond the bound of the file the oldest goes, as a chore as well (`trimming`), what rules say before (`keeping`,
`thinning`), and pages are given back by
`incremental_vacuum`, for which new files are made ready. A change of the form is a step in `schema.UPGRADES`.
"""
