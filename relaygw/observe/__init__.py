"""What the gateway tells the outside.

`events` says what there is to tell, `observer` to whom, a form (`postfix_form`, `json_form`) how
the log says it, `outlets` where that goes; `maillog` lets nothing wait for it.
"""
