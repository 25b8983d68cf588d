"""What is kept of what a program prints."""

import asyncio
import os

from services.sandbox.output import FLOOD_FACTOR, Capture, Printed


async def test_short_output_is_kept_as_it_is_and_parts_are_told_apart() -> None:
    capture = Capture(100, lambda: None)
    os.write(capture.write_end, b"one\n" + b"-" * 96)
    assert capture.take() == Printed("one\n" + "-" * 96, truncated=False)
    os.write(capture.write_end, "zwölf".encode())
    assert capture.take() == Printed("zwölf", truncated=False)
    assert not capture.truncated
    capture.close()


async def test_long_output_is_cut_in_its_middle_and_the_part_after_it_is_whole() -> None:
    capture = Capture(100, lambda: None)
    os.write(capture.write_end, b"a" * 200 + b"b" * 200)
    assert capture.take() == Printed("a" * 50 + "\n[... cut ...]\n" + "b" * 50, truncated=True)
    os.write(capture.write_end, b"7\n")
    assert capture.take() == Printed("7\n", truncated=False)
    assert capture.truncated
    capture.close()


async def test_a_flood_is_reported_while_less_is_not() -> None:
    floods: list[int] = []
    capture = Capture(1000, lambda: floods.append(1))
    for _ in range(FLOOD_FACTOR):
        os.write(capture.write_end, b"x" * 1000)
        await asyncio.sleep(0)
        capture.drain()
    assert not floods
    os.write(capture.write_end, b"x")
    capture.drain()
    assert floods
    capture.close()


async def test_bytes_that_are_no_text_and_nul_become_replacement_characters() -> None:
    capture = Capture(100, lambda: None)
    os.write(capture.write_end, b"a\xff\x00b")
    assert capture.take() == Printed("a\ufffd\ufffdb", truncated=False)
    capture.close()
