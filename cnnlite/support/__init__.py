"""Shared by the whole library: argument checks, messages, locks, interrupts."""
