-- Outputs and errors that are too long for the rows of their results stand in `payloads` as well; `output` or `error` is empty then. In a table
-- without rowids SQLite compares keys by whole rows, with the pages behind them: whoever looked for a result read all the long ones that the
-- search came by. One stands there until its result is removed, or the job runs again. Those of earlier versions stay where they are.
ALTER TABLE results ADD COLUMN outcome_payload INTEGER; -- its place in `payloads`
