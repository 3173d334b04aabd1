"""Executes pieces of code that come with their length, for the stand-in device's prompt."""

import io
import sys

HERE = __file__.rsplit("/", 1)[0]
sys.path[:0] = ["", HERE]
sys.modules["machine"] = __import__("standin_machine")
names = {"__name__": "__main__"}
while True:
    length = sys.stdin.buffer.readline()
    if not length:
        break
    code = sys.stdin.buffer.read(int(length))
    error = io.StringIO()
    try:
        exec(code.decode(), names)
    except SystemExit:
        raise
    except BaseException as caught:  # noqa: BLE001 - whatever was typed
        sys.print_exception(caught, error)
    sys.stdout.write("\x04" + error.getvalue() + "\x04")
