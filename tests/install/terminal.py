"""A shell on a terminal of its own, which keys are typed into."""

import os
import pty
import select
import signal
import time


class Terminal:
    """Runs `command`; use it in a `with`."""

    def __init__(self, command, environment):
        self.shown = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            try:
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(127)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def type(self, keys):
        os.write(self._terminal, keys.encode())

    def sees(self, words, seconds=10):
        """Whether `words` come onto the screen; what was there before does not count again."""
        until = time.monotonic() + seconds
        while words not in self.shown:
            ready, _, _ = select.select([self._terminal], [], [], max(0, until - time.monotonic()))
            if not ready:
                return False
            try:
                self.shown += os.read(self._terminal, 4096).decode(errors="replace")
            except OSError:  # the shell has ended
                return False
        self.shown = self.shown.split(words, 1)[1]
        return True
