-- What a task asks for and does not get where it runs, a JSON list of sentences.
ALTER TABLE tasks ADD COLUMN remarks TEXT NOT NULL DEFAULT '[]';
