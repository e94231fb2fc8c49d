"""What all tests need."""

import signal

# Where the tests run as a shell's background job, Ctrl-C is ignored, and children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
