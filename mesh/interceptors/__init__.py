"""What happens around every RPC, one concern a file, in one order.

telemetry, errors, deadline, authentication, authorisation, rate_limit, validation, idempotency, audit, handler.
"""
