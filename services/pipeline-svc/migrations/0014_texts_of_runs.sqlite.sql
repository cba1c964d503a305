-- Runs by the trigrams of their texts, for filters by a substring. The index reads the texts from a table
-- with numbers of its own, as the rowids of `runs` may change when the file is vacuumed.
CREATE TABLE runs_texts_rows (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    pipeline_name TEXT NOT NULL
);
-- Without sizes of columns, which only a ranking needs, a run is added in half the time.
CREATE VIRTUAL TABLE runs_texts USING fts5(
    display_name, description, pipeline_name,
    content = 'runs_texts_rows', content_rowid = 'number', columnsize = 0, tokenize = 'trigram'
);
INSERT INTO runs_texts_rows (id, display_name, description, pipeline_name)
    SELECT id, display_name, description, pipeline_name FROM runs;
INSERT INTO runs_texts (runs_texts) VALUES ('rebuild');
CREATE TRIGGER runs_texts_insert AFTER INSERT ON runs BEGIN
    INSERT INTO runs_texts_rows (id, display_name, description, pipeline_name)
        VALUES (new.id, new.display_name, new.description, new.pipeline_name);
    INSERT INTO runs_texts (rowid, display_name, description, pipeline_name)
        VALUES (last_insert_rowid(), new.display_name, new.description, new.pipeline_name);
END;
-- FTS5 has to be told what to forget.
CREATE TRIGGER runs_texts_update AFTER UPDATE OF display_name, description, pipeline_name ON runs BEGIN
    INSERT INTO runs_texts (runs_texts, rowid, display_name, description, pipeline_name)
        SELECT 'delete', number, display_name, description, pipeline_name
        FROM runs_texts_rows WHERE id = new.id;
    UPDATE runs_texts_rows SET display_name = new.display_name, description = new.description,
        pipeline_name = new.pipeline_name WHERE id = new.id;
    INSERT INTO runs_texts (rowid, display_name, description, pipeline_name)
        SELECT number, display_name, description, pipeline_name
        FROM runs_texts_rows WHERE id = new.id;
END;
CREATE TRIGGER runs_texts_delete AFTER DELETE ON runs BEGIN
    INSERT INTO runs_texts (runs_texts, rowid, display_name, description, pipeline_name)
        SELECT 'delete', number, display_name, description, pipeline_name
        FROM runs_texts_rows WHERE id = old.id;
    DELETE FROM runs_texts_rows WHERE id = old.id;
END;
