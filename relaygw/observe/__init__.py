"""What the gateway tells the outside: the mail log. May import `settings`, `mail`, `errors`.

`events` says what there is to tell, `observer` to whom, a form (`postfix_form`, `json_form`) how
the log says it, `outlets` where that goes; `maillog` lets nothing wait for it.
"""
