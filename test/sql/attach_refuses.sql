-- attach: what cannot be attached is refused, with the call to make
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE SCHEMA refuse_test;
SET search_path = refuse_test;

CREATE TABLE template_trades (id bigint PRIMARY KEY, symbol text, buyer_id text, seller_id text, buyer_order_id text,
    seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric);

-- relations
CREATE VIEW v AS SELECT * FROM template_trades;
CREATE TEMP TABLE temporary_trades (LIKE template_trades INCLUDING ALL);
CREATE UNLOGGED TABLE unlogged_trades (LIKE template_trades INCLUDING ALL);
CREATE TABLE no_key (LIKE template_trades);
CREATE TABLE deferrable_key (LIKE template_trades, PRIMARY KEY (id) DEFERRABLE);
CREATE TABLE boolean_key (LIKE template_trades, flag boolean, PRIMARY KEY (id, flag));
CREATE TABLE parent (LIKE template_trades INCLUDING ALL);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE root (LIKE template_trades INCLUDING ALL) PARTITION BY RANGE (id);
CREATE TABLE root_1 PARTITION OF root FOR VALUES FROM (0) TO (100);
SELECT settlement.attach(NULL);
SELECT settlement.attach('v');
SELECT settlement.attach('temporary_trades');
SELECT settlement.attach('unlogged_trades');
SELECT settlement.attach('pg_class');
SELECT settlement.attach('settlement.queue');
SELECT settlement.attach('no_key');
SELECT settlement.attach('deferrable_key');
SELECT settlement.attach('boolean_key');
SELECT settlement.attach('parent');
SELECT settlement.attach('child');
SELECT settlement.attach('root_1');

-- mappings
SELECT settlement.attach('template_trades', '[]');
SELECT settlement.attach('template_trades', NULL);
SELECT settlement.attach('template_trades', '{"fee": "price"}');
SELECT settlement.attach('template_trades', '{"price": "rate"}');
SELECT settlement.attach('template_trades', '{"price": 7}');
SELECT settlement.attach('template_trades', '{"price": null}');
SELECT settlement.attach('template_trades', '{"buyer_id": "id"}');
SELECT settlement.attach('template_trades', source => '');

-- columns
CREATE TABLE few (id int PRIMARY KEY, symbol text, rate numeric);
SELECT settlement.attach('few', '{"price": "rate"}');
CREATE DOMAIN approximate AS double precision;
CREATE TABLE bad (LIKE template_trades INCLUDING ALL);
ALTER TABLE bad ALTER price TYPE approximate;
SELECT settlement.attach('bad');
ALTER TABLE bad ALTER price TYPE numeric;
ALTER TABLE bad ADD settlement_status varchar(7);
SELECT settlement.attach('bad');
ALTER TABLE bad DROP settlement_status;
ALTER TABLE bad ADD settlement_attempts int GENERATED ALWAYS AS (1) STORED;
SELECT settlement.attach('bad');

-- nothing of a refused attach stays
SELECT count(*) FROM pg_attribute WHERE attrelid IN ('bad'::regclass, 'few'::regclass) AND attname = 'settlement_error';

-- twice, and a source that is taken
ALTER TABLE template_trades SET (fillfactor = 50);
CREATE ROLE regress_settlement_owner;
ALTER TABLE template_trades OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('template_trades');
SELECT settlement.attach('template_trades');
CREATE TABLE second (LIKE template_trades INCLUDING ALL);
SELECT settlement.attach('second', source => 'refuse_test.template_trades');

-- a table that is not attached does not take the trigger
CREATE TRIGGER t AFTER INSERT ON second FOR EACH ROW EXECUTE FUNCTION settlement.enqueue();
INSERT INTO second (id) VALUES (1);
DROP TRIGGER t ON second;
CREATE TRIGGER t BEFORE INSERT ON second FOR EACH ROW EXECUTE FUNCTION settlement.enqueue();
INSERT INTO second (id) VALUES (1);
SELECT settlement.detach('second');
SELECT settlement.detach(NULL);

-- only those who may
CREATE ROLE regress_settlement_nobody;
GRANT USAGE ON SCHEMA settlement, refuse_test TO regress_settlement_nobody;
SET ROLE regress_settlement_nobody;
SELECT settlement.attach('refuse_test.second');
SELECT settlement.detach('refuse_test.template_trades');
SELECT settlement.enqueue_pending('refuse_test.template_trades');
CREATE TEMP TABLE mine (id int);
CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION settlement.enqueue();
RESET ROLE;
DROP TABLE mine;

SELECT settlement.detach('template_trades');
REVOKE ALL ON SCHEMA settlement FROM regress_settlement_nobody;
DROP SCHEMA refuse_test CASCADE;
DROP ROLE regress_settlement_owner, regress_settlement_nobody;
