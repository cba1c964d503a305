-- Why a task's command has not begun, as its runtime says; empty when nothing is in the way.
ALTER TABLE tasks ADD COLUMN note TEXT NOT NULL DEFAULT '';
