-- What the database alone costs: the writes of the workers, without the wallet.
--
-- One turn after the other, as a worker has them: the outcome of the last turn and
-- the claim of the next in one transaction, so one flush per turn.  It writes what a
-- worker writes and nothing more: the claim, the rows that leave claims and queue,
-- the trade rows.  It reads less (a queue row is not unpacked) and decides nothing,
-- so it is a lower bound, and the ceiling made of it is one that cannot be reached.
CREATE PROCEDURE bench.claim_and_finish(batch integer) LANGUAGE plpgsql AS $$
DECLARE
    turn bigint := 0;
    frontier bigint := 0;
    ids bigint[];
    tids tid[];
    next_ids bigint[];
    next_tids tid[];
BEGIN
    LOOP
        SELECT array_agg(id), array_agg(trade_tid), max(id) INTO next_ids, next_tids, frontier
        FROM (SELECT id, trade_tid FROM settlement.queue WHERE id > frontier ORDER BY id LIMIT batch) AS q;
        IF ids IS NOT NULL THEN
            DELETE FROM settlement.claims WHERE boot = 0 AND token = turn;
            DELETE FROM settlement.queue WHERE id = ANY (ids);
            UPDATE public.trades SET settlement_status = 'SETTLED', settled_at = clock_timestamp(), settlement_attempts = 1,
                settlement_id = '7b0f4a52-57b9-4f0f-9a39-0c2f7c7f3f10'
            WHERE ctid = ANY (tids);
        END IF;
        EXIT WHEN next_ids IS NULL;
        turn := turn + 1;
        ids := next_ids;
        tids := next_tids;
        INSERT INTO settlement.claims (boot, token, slot, claimed_at, format, ids)
        VALUES (0, turn, 0, clock_timestamp(), 1, ids);
        COMMIT;
    END LOOP;
END $$;
