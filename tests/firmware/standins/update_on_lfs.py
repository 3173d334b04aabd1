"""Runs under MicroPython: board/update.py and slots.py on a LittleFS in memory, whose power can fail at any write."""

import asyncio
import gc
import json
import sys

sys.path[:] = ["", ".frozen"]
import lfs  # noqa: E402
import slots  # noqa: E402
from board import update  # noqa: E402

with open("asked.json") as file:
    asked = json.load(file)


def make_flash():
    flash = lfs.make(asked.get("blocks", 48))
    for name in asked["old"]:
        update._make_folders(name)
        with open(name, "w") as file:
            file.write(asked["old"][name])
    if asked.get("serial"):
        slots.save({"now": "", "serial": asked["serial"]})
    return flash


class Giver:
    """Answers questions like `sensors-flash update`."""

    def __init__(self, manifest):
        self.manifest = manifest
        self.updater = None
        self.questions = []
        self.pieces = 0

    def ask(self, question):
        question = json.loads(question)
        of, at = question["get"], question["at"]
        self.questions.append(of)
        if asked.get("stop_after") is not None and len(self.questions) > asked["stop_after"]:
            return
        lossy = asked.get("lossy")
        if lossy and len(self.questions) % 3 == 1:
            return
        data = (self.manifest if of == "manifest" else asked["files"][of]).encode()
        head = json.dumps({"of": of, "at": at, "size": len(data)}).encode() + b"\n"
        if lossy:
            self.updater.piece(b"")
            self.updater.piece(b"nonsense")
            self.updater.piece(json.dumps({"of": of, "at": at + 1, "size": len(data)}).encode() + b"\nzzz")
        for _ in range(2 if lossy else 1):
            self.updater.piece(head + data[at : at + 256])


def make_updater(manifest):
    giver = Giver(manifest)
    giver.updater = update.Updater(
        asked.get("id", "kitchen"), asked["key"], "1.0.0", lambda: None, giver.ask, lambda _: None, 0.01, 0.3
    )
    return giver


async def bring(giver):
    return await giver.updater.run()


def run_update(manifest=None):
    giver = make_updater(manifest or asked["manifest"])
    try:
        result = "switched" if asyncio.run(bring(giver)) else "same"
    except update.UpdateError as error:
        result = "refused: " + str(error)
    return result, giver


def starts():
    """What main.py would start: the program, which must be whole."""
    slot = slots.begin()
    path = slot + "/" if slot else ""
    names = {}
    with open(path + "board/app.py") as file:
        exec(file.read(), names)
    with open(path + "payloads.py") as file:
        exec(file.read(), names)
    with open(path + "board/drivers/common.py") as file:
        exec(file.read(), names)
    assert names["NAME"] == names["PAYLOADS"], names["PAYLOADS"]
    assert names["SAME"] == 1
    return names["NAME"]


if asked["mode"] == "once":
    make_flash()
    if asked.get("spoil"):
        opened = open

        class Spoiler:
            """Forgets what is written to a file from its tenth byte on."""

            def __init__(self, file):
                self.file = file

            def write(self, data):
                return self.file.write(data[:10] + bytes(len(data) - 10))

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

        def spoiling(name, mode="r"):
            file = opened(name, mode)
            return Spoiler(file) if mode == "wb" and name.endswith(asked["spoil"]) else file

        update.open = spoiling
    result, giver = run_update()
    print(result)
    choice = slots.load()
    print(f"slot {choice['now']} left {choice.get('left')}")
    print("starts " + starts())
    count = len([of for of in set(giver.questions) if of != "manifest"])
    print(f"asked {count} files")
elif asked["mode"] == "cuts":
    flash = make_flash()
    before, flash.writes = bytes(flash.data), 0
    assert run_update()[0] == "switched"
    assert starts() == "new"
    total = flash.writes
    counts = {"old": 0, "new": 0, "broken": 0, "completed afterwards": 0}
    for cut in range(1, total + 1):
        flash.data[:] = before
        flash = flash.revive()
        gc.disable()
        flash.fuse = cut
        try:
            run_update()
            starts()
        except lfs.PowerCut:
            pass
        # power is back, and fails once more at an early write of the start
        flash = flash.revive()
        gc.disable()
        flash.fuse = 1 + cut % 5
        try:
            starts()
        except lfs.PowerCut:
            pass
        flash = flash.revive()
        try:
            counts[starts()] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is
            sys.print_exception(error)
            counts["broken"] += 1
            continue
        if slots.on_trial():
            slots.confirm()
        result = run_update()[0]
        slots.confirm()
        if starts() == "new":
            counts["completed afterwards"] += 1
    print(f"cuts: {total}")
    for name, count in counts.items():
        print(f"{name}: {count}")
elif asked["mode"] == "trial":
    make_flash()
    print(run_update()[0])
    for _ in range(4):
        print("starts " + starts())
    print(f"failed {slots.failed()}")
    print("build", slots.load()["build"])
    print(run_update(asked["later"])[0])
    print("starts " + starts())
    slots.confirm()
    print("confirmed")
    for _ in range(5):
        print("starts " + starts())
    print("build", slots.load()["build"])
