-- Runs by the trigrams of their texts, for filters by a substring. The extension comes with PostgreSQL and
-- is trusted: whoever may create in the database may add it. An administrator may have put it into another
-- schema, where operator classes are not found by their bare name.
DO $$
DECLARE
    place TEXT;
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
    SELECT nspname INTO STRICT place
        FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
        WHERE extname = 'pg_trgm';
    EXECUTE format(
        'CREATE INDEX runs_by_texts ON runs USING gin (display_name %1$I.gin_trgm_ops, '
        'description %1$I.gin_trgm_ops, pipeline_name %1$I.gin_trgm_ops)',
        place
    );
END
$$;
