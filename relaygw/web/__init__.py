"""The web role over HTTP, by subject: `gate` (who may ask), `mail` (hostile content) and others.

APIs are packages named `api`; they and pages do not know each other.
"""
