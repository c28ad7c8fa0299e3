"""The engine: token ids in, token ids out.

`protocol` says what an engine is. `continuous` is the one that runs use: on the cache of `slots`, or, where there is
a `forward` pass of our own, in `ragged` batches on the cache of `lines`, each of a thread of the `crew`. `reference`
is the plain form, and `choice` picks one of them. `sampling` draws tokens, `memory` halves batches that don't fit.
`files` finds models, `hub` fetches them, `inventory` lists them, `tokenizer` and `loading` load them.
"""
