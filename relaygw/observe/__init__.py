"""What the gateway tells the outside: the mail log. May import `settings`, `mail`, `errors`.

`events` says what there is to tell, a form (`postfix_form`, `json_form`) how it reads, an outlet
(`stderr_outlet`, `file_outlet`, `syslog_outlet`) where it goes; `channel` lets nothing wait.
"""
