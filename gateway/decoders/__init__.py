"""Decoders: payloads that are not JSON, made JSON of by rule on the topic, never by guessing.

Invariant: what comes out is valid JSON that is bounded in bytes, values and depth, and no payload makes more come out
than `DecodeError`. A payload is decoded once, when it arrives, and in one go: so each format's longest payload is what
was measured to take less than 20 ms. What is kept beside it, and who gets which of both, is `core`'s.
"""
