"""The engine: token ids in, token ids out.

`protocol` says what an engine is, `reference` is the plain form of one; `loading` finds and loads models, `sampling`
draws tokens.
"""
