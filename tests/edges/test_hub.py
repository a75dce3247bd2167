"""The hub loses no trial, doubles none, and stops exactly where the scheduler says."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from bothways.edges.hub import Hub, Job, Outcome
from bothways.results import Report


def job(trial_id: str, **more: Any) -> Job:
    return Job(trial_id=trial_id, experiment={}, directory="", **more)


def at(step: int) -> Report:
    return Report(step=step, steps=9, metrics={"selection/accuracy": 0.5}, seconds=float(step))


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 5))


def test_every_rank_of_a_lane_gets_the_same_job_and_two_lanes_never_share_one() -> None:
    async def story() -> None:
        hub = Hub()
        for lane in (0, 1):
            await hub.lane_started(lane, "x")
        await hub.submit(job("a"))
        await hub.submit(job("b"))
        taken = await asyncio.gather(*(hub.next_job(lane, "x", 0) for lane in (0, 0, 1, 1)))
        assert [j.trial_id for j in taken if j] == ["a", "a", "b", "b"]

    run(story())


def test_what_a_lane_says_is_an_event() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        before = await hub.happened()
        await hub.lane_says(0, "step 3 of 9")
        (event,) = await hub.events(before, 0.0)
        assert (event.kind, event.lane, event.note) == ("lane", 0, "step 3 of 9")

    run(story())


def test_a_report_waits_for_the_decision_and_a_stop_is_its_answer() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        await hub.submit(job("a"))
        await hub.next_job(0, "x", 0)
        lane = asyncio.create_task(hub.report("a", at(1)))
        assert await hub.next_report("a") == at(1)
        await asyncio.sleep(0.01)
        assert not lane.done()  # Tune has the report and has not decided
        asking = asyncio.create_task(hub.next_report("a"))
        assert await lane == "go"
        lane = asyncio.create_task(hub.report("a", at(2)))
        assert await asking == at(2)
        await hub.stop("a")
        assert await lane == "stop"
        await hub.finish(Outcome(trial_id="a", status="stopped"))
        assert (await hub.outcome("a")).status == "stopped"

    run(story())


def test_a_dead_lanes_trial_goes_on_elsewhere_and_its_repeated_reports_are_not_doubled() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        await hub.submit(job("a", lock_step=False))
        await hub.submit(job("b", lock_step=False))
        await hub.next_job(0, "x", 0)
        await hub.report("a", at(1))
        stale = asyncio.create_task(hub.next_job(0, "x", 1))  # a poll of the worker that is about to die
        await asyncio.sleep(0)
        await hub.lane_started(0, "y")
        assert (taken := await hub.next_job(0, "y", 0)) is not None
        assert taken.trial_id in {"a", "b"}
        await hub.report("a", at(1))
        await hub.report("a", at(2))
        steps = [e.report.step for e in await hub.events(0) if e.kind == "report" and e.report]
        assert steps == [1, 2]
        stale.cancel()

    run(story())


def test_the_orphan_is_first_in_the_queue() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        await hub.submit(job("a"))
        await hub.submit(job("b"))
        await hub.next_job(0, "x", 0)
        await hub.lane_started(0, "y")
        taken = await hub.next_job(0, "y", 0)
        assert taken is not None
        assert taken.trial_id == "a"

    run(story())


def test_a_poll_of_a_dead_worker_takes_no_trial() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        stale = asyncio.create_task(hub.next_job(0, "x", 0))
        await asyncio.sleep(0)
        await hub.lane_started(0, "y")
        assert await stale is None
        await hub.submit(job("a"))
        taken = await hub.next_job(0, "y", 0)
        assert taken is not None
        assert taken.trial_id == "a"

    run(story())


def test_a_trial_that_keeps_killing_its_worker_fails_with_the_count() -> None:
    async def story() -> None:
        hub = Hub(max_attempts=2)
        await hub.submit(job("a"))
        for attempt in "xyz":
            await hub.lane_started(0, attempt)
            if attempt != "z":
                await hub.next_job(0, attempt, 0)
        outcome = await hub.outcome("a")
        assert outcome.status == "failed"
        assert outcome.error == "its worker died 2 times"

    run(story())


def test_closing_interrupts_what_is_queued_and_what_runs_and_tells_the_lane_at_its_next_report() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        await hub.submit(job("a"))
        await hub.next_job(0, "x", 0)
        await hub.submit(job("b"))
        await hub.close()
        assert {(await hub.outcome(name)).status for name in "ab"} == {"interrupted"}
        assert await hub.report("a", at(1)) == "interrupt"
        await hub.finish(Outcome(trial_id="a", status="finished"))
        assert (await hub.outcome("a")).status == "interrupted"
        assert await hub.next_job(0, "x", 1) is None

    run(story())


def test_closing_with_an_error_fails_what_is_unfinished() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.submit(job("a"))
        await hub.close("stalled")
        assert (await hub.outcome("a")).error == "stalled"

    run(story())


def test_a_queued_trial_that_is_stopped_never_reaches_a_lane() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.submit(job("a"))
        await hub.stop("a")
        assert (await hub.outcome("a")).status == "stopped"
        await hub.lane_started(0, "x")
        await hub.submit(job("b"))
        taken = await hub.next_job(0, "x", 0)
        assert taken is not None
        assert taken.trial_id == "b"

    run(story())


def test_events_are_read_from_a_number_on_and_an_idle_hub_answers_with_none() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        assert [e.kind for e in await hub.events(0)] == ["lane"]
        assert await hub.events(1, timeout_s=0.01) == []
        assert (await hub.status())[0].startswith("lane 0 waits for a trial")

    run(story())


def test_the_trial_that_must_be_first_is_waited_for() -> None:
    async def story() -> None:
        hub = Hub(first="000-")
        await hub.lane_started(0, "x")
        await hub.submit(job("001-rdrop"))
        asking = asyncio.create_task(hub.next_job(0, "x", 0))
        await asyncio.sleep(0.01)
        assert not asking.done()
        await hub.submit(job("000-control"))
        order = [await asking, await hub.next_job(0, "x", 1)]
        assert [taken.trial_id for taken in order if taken] == ["000-control", "001-rdrop"]

    run(story())


def test_a_dead_lane_gives_back_what_it_trained_and_what_it_still_wrote_in_their_order() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        for name in "abc":
            await hub.submit(job(name))
        await hub.next_job(0, "x", 0)
        await hub.next_job(0, "x", 1)  # a's model is being written while b trains
        await hub.lane_failed(0, "its worker died")
        await hub.lane_started(1, "y")
        taken = [await hub.next_job(1, "y", seq) for seq in range(3)]
        assert [j.trial_id for j in taken if j] == ["a", "b", "c"]

    run(story())


def test_what_was_delivered_is_forgotten() -> None:
    async def story() -> None:
        hub = Hub()
        for name in "abc":
            await hub.lane_started(0, name)
        first = await hub.events(0)
        await hub.lane_failed(0, "its worker died")
        assert [e.note for e in await hub.events(len(first))] == ["its worker died"]
        assert await hub.happened() == 4
        assert len(await hub.events(0)) == 1  # the first three are gone: memory does not grow with a sweep

    run(story())


def test_a_trial_submitted_again_is_not_run_again() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.lane_started(0, "x")
        await hub.submit(job("a"))
        await hub.next_job(0, "x", 0)
        await hub.submit(job("a"))  # Tune has lost its side of the trial, and has begun it anew
        await hub.finish(Outcome(trial_id="a", status="finished"))
        await hub.submit(job("a"))
        assert await hub.next_report("a") == Outcome(trial_id="a", status="finished")
        asking = asyncio.create_task(hub.next_job(0, "x", 1))
        await asyncio.sleep(0.01)
        assert not asking.done()
        asking.cancel()

    run(story())
