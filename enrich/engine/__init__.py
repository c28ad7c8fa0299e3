"""The engine: token ids in, token ids out.

`protocol` says what an engine is, `reference` is the plain form of one, `sampling` draws tokens. `files` finds models,
`hub` fetches them, `inventory` lists them, `tokenizer` and `loading` load them.
"""
