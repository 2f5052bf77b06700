"""The stages that do the work, layer by layer: source, processor, batcher, batch processor."""
