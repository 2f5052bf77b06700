"""The names of all telemetry events.

``start`` events measure ``system_time`` (wall clock, seconds) and ``monotonic_time`` (seconds). ``stop`` and
``exception`` events measure ``duration`` and ``monotonic_time`` (seconds). The metadata always names the
``pipeline``; an ``exception`` event adds ``exception``. Events of flows have no pipeline: they have the ``flow``, which
counts the runs of flows in this process from 1, and the ``runner``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["EVENTS"]

EVENTS: Final[frozenset[str]] = frozenset(
    {
        # All stages of a pipeline have been made: topology, system_time.
        "broadway.topology.init",
        # One chunk in a processor: name, index, messages; stop adds successful_to_ack, successful_to_forward, failed.
        "broadway.processor.start",
        "broadway.processor.stop",
        "broadway.processor.exception",
        # One message in handle_message: name, index, message. If its callback raised, the last event is "exception".
        "broadway.processor.message.start",
        "broadway.processor.message.stop",
        "broadway.processor.message.exception",
        # One list of messages put into open batches: batcher, messages.
        "broadway.batcher.start",
        "broadway.batcher.stop",
        # One batch in handle_batch: name, index, messages, batch_info; stop adds successful, failed. If the handler
        # raised, the batch has failed and the event is "stop". "exception", here as for a chunk, means that the stage
        # itself crashed.
        "broadway.batch_processor.start",
        "broadway.batch_processor.stop",
        "broadway.batch_processor.exception",
        # Failed messages in handle_failed: stage, index, messages.
        "broadway.handle_failed.start",
        "broadway.handle_failed.stop",
        "broadway.handle_failed.exception",
        # One checkpoint of an aggregator while it is being stored: aggregator, number, messages. "exception" means that
        # the time of the stop was over before it was stored, or that the stage itself crashed.
        "broadway.aggregator.checkpoint.start",
        "broadway.aggregator.checkpoint.stop",
        "broadway.aggregator.checkpoint.exception",
        # Windows that have fired, once their results are stored: aggregator, number of the checkpoint, results (of each
        # "<id>#<firing>"), triggers (how many of them each trigger has made). Measured as a start event.
        "broadway.aggregator.fired",
        # Messages whose windows have closed, before they fail or go to late(): aggregator, messages, why ("event_time":
        # they came too late; "held": hold_timeout ran out while they were here). Measured as a start event.
        "broadway.aggregator.late",
        # A producer's connection: producer, index; lost adds reason. The measurements are those of a start event.
        "broadway.producer.connected",
        "broadway.producer.lost",
        # Messages that were handled before, and are acked without being handled (deduplicate_by): producer, index,
        # messages. Measured as a start event.
        "broadway.deduplication.repeats",
        # One receive of an SQS producer: producer, demand; stop adds messages.
        "broadway.sqs.receive_messages.start",
        "broadway.sqs.receive_messages.stop",
        "broadway.sqs.receive_messages.exception",
        # One call of publish or publish_many: publisher, messages (how many). "exception": not all were confirmed.
        "broadway.publisher.publish.start",
        "broadway.publisher.publish.stop",
        "broadway.publisher.publish.exception",
        # One run of a flow: layers (the label of each, and how many stages it has); stop adds, in the place of that,
        # report (a FlowReport) and exception: the FlowFailed, the CancelledError of a run that was stopped or broken
        # out of, or None.
        "broadway.flow.start",
        "broadway.flow.stop",
        # One stage of a layer has ended, or was ended: layer, index, report (a StageReport). The duration is that of
        # the run so far. Those in a worker process are told when the process has told what it has done.
        "broadway.flow.stage.stop",
    }
)
