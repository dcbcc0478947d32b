-- What a source (ingest/source.h) remembers between starts, such as how far it has read a database's log.
CREATE TABLE source_notes (
    source TEXT NOT NULL,
    item   TEXT NOT NULL,
    text   TEXT NOT NULL,
    PRIMARY KEY (source, item)
) WITHOUT ROWID;
