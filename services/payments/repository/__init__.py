"""All SQL of payments. Every function works in the transaction of the connection that it is given.

Lock order, so that nothing waits in a circle: the payment's row first, then its attempts, adjustments and refunds.
"""
