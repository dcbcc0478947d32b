-- The trace context that an event was published with (core/trace.h). NULL: none.
ALTER TABLE events ADD COLUMN trace TEXT;
