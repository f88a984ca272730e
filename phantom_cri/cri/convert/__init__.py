"""Between CRI's messages and `phantom_cri.model`, both ways; one module per noun.

`…_from` reads a message and raises InvalidArgument naming the field, as `config.linux.sysctls`;
`…_message` writes one. Errors that are visible in the message alone are refused here: unknown enum values,
ids that no kernel has, a NUL byte in a future C string.
"""
