"""
What is answered: one small module a protocol.

It may know what the plugin of a stranger may: `echod.kit`, `echod.wire`, `echod.interfaces` and
`echod.errors` (a contract of import-linter holds it to that).
"""
