"""What all of the library uses: checks of arguments, messages, locks, interrupts."""
