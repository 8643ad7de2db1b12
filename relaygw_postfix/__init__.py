"""What a Postfix does by its configuration, and the relaygw.yaml that does the same.

Reading, asking and writing are at the edges (`main_cf.read_configuration`, `maps.Tables`,
`written`); the rest is pure.
"""
