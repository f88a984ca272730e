"""Between CRI's messages and `phantom_cri.model`, both ways; one module per noun.

`…_from` reads a message and raises InvalidArgument naming the field, as `config.linux.sysctls`;
`…_message` writes one. What a message alone can show to be wrong is refused here: enum values
nobody knows, ids no kernel has, a NUL byte in what becomes a C string.
"""
