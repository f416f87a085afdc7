-- Roles of the store, by least privilege. Run once by the database's superuser in the database of the store, before ingest starts:
-- the container does so by itself when its volume is empty; elsewhere
--
--   psql --dbname guantong --file 010-guantong.sql
--
-- with the two passwords in the files that are read below (set `secrets` with --set=secrets=FOLDER for another folder).
--
--   guantong_ingest   makes the tables and writes them; one connection of ingest
--   guantong_serve    reads them, and can do nothing else

\set ON_ERROR_STOP on
\if :{?secrets}
\else
  \set secrets /run/secrets
\endif
\set ingest_password `head -n 1 :'secrets'/store_ingest`
\set serve_password `head -n 1 :'secrets'/store_serve`

SELECT length(:'ingest_password') > 0 AND length(:'serve_password') > 0 AS passwords_found \gset
\if :passwords_found
\else
  DO $$ BEGIN RAISE EXCEPTION 'store_ingest or store_serve is missing or empty; run deploy/make-secrets'; END $$;
\endif

SELECT count(*) > 0 AS timescaledb_offered FROM pg_available_extensions WHERE name = 'timescaledb' \gset
\if :timescaledb_offered
  CREATE EXTENSION IF NOT EXISTS timescaledb;
\endif

BEGIN;

CREATE ROLE guantong_ingest LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT
  CONNECTION LIMIT 10 PASSWORD :'ingest_password';
CREATE ROLE guantong_serve LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT
  CONNECTION LIMIT 30 PASSWORD :'serve_password';

SELECT current_database() AS store \gset
REVOKE ALL ON DATABASE :"store" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"store" TO guantong_ingest, guantong_serve;
GRANT TEMPORARY ON DATABASE :"store" TO guantong_ingest;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO guantong_ingest;
GRANT USAGE ON SCHEMA public TO guantong_serve;

-- the tables come later, with ingest's migrations
ALTER DEFAULT PRIVILEGES FOR ROLE guantong_ingest IN SCHEMA public GRANT SELECT ON TABLES TO guantong_serve;

ALTER ROLE guantong_serve SET default_transaction_read_only = on;
-- a query that nobody waits for any more must not hold up the vacuum of a small box
ALTER ROLE guantong_serve SET statement_timeout = '10min';
ALTER ROLE guantong_serve SET idle_in_transaction_session_timeout = '5min';
ALTER ROLE guantong_ingest SET idle_in_transaction_session_timeout = '5min';

COMMIT;
