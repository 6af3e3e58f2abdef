-- Made by make.py. Every kind of row, as this schema has it.
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'jobs','2026-11-26 05:55:00',1,X'08EAF670263D2563F4B288145F4F982CEF4AD3675C28AD0ECDCFB8D537D38F554D784069B0E917D4D6722EA8C15CD967',3620053);
INSERT INTO "_sqlx_migrations" VALUES(2,'events','2026-11-26 05:55:00',1,X'27E85529A69200AC3073C2300F377802AF00A793AC639EC68D11EA2DFFCB516433A6427708C7C76A5E4B121D4D1E71C5',3922682);
INSERT INTO "_sqlx_migrations" VALUES(3,'functions','2026-11-26 05:55:00',1,X'DD51EDE7D4BADADC8267CAE780E5648722A9E6696BF84CF72250EBDD044C923A348DC195642CA526C609170675EBA8BC',5921865);
INSERT INTO "_sqlx_migrations" VALUES(4,'profiles','2026-11-26 05:55:00',1,X'D135FF0886B960E131472CC571A6F517ECFAD8F9E1C1035290F0F7FD98B21DC982A5466CCC6D3BE0E562071C41A02AAE',3947209);
INSERT INTO "_sqlx_migrations" VALUES(5,'comparisons','2026-11-26 05:55:00',1,X'8A7E5208AF5F3009A03CDB6956B8EEEAD3C11202603D60E8843206D97AFDACA6F805598136578EAC091C4890DC5F6C66',4744074);
INSERT INTO "_sqlx_migrations" VALUES(6,'life','2026-11-26 05:55:00',1,X'987A29E18E0D9B9F6D59D3C1BF19EFAC5C2D069A4E0C59284A58EA340B116C9E389784179919AE56CF4699CA19824211',3921912);
INSERT INTO "_sqlx_migrations" VALUES(7,'graph','2026-11-26 05:55:00',1,X'D917586D3F80CE8EEE8828631A4068EA789E27E1BE7DC59D462747DC62CBAD4FA60FF09DB73E1C45B8CAB5BE57FF8979',3925607);
INSERT INTO "_sqlx_migrations" VALUES(8,'schedules','2026-11-26 05:55:00',1,X'5BFF9B46462A0D6F873C7CFCF8CDD543B36C1084C3FB07778A1F5198A18AB9E616C593C4F69E8B7DE0848B404535766B',3923454);
INSERT INTO "_sqlx_migrations" VALUES(9,'webhooks','2026-11-26 05:55:00',1,X'56CD076EA9B8DD9325EBC94CAFE01F4444DF78CE7FB592E2CFB5178BD34ED52DFB6D0717A639E441C51A4440872F0EDA',3934881);
INSERT INTO "_sqlx_migrations" VALUES(10,'retention','2026-11-26 05:55:00',1,X'571922D0850828C28A920C5A9121AFB53285DC7DF986DB8E536F673696039DF1DF90F8F79121B5EEE4CAC64F91E5006E',3961551);
INSERT INTO "_sqlx_migrations" VALUES(15,'keys','2026-11-26 05:55:00',1,X'13376B19B6E69E0DC27BF85CA2B5A9625D8BB045191C907D37AE56F8684E543B4163BE5E2EBC6D20DC52F119BA60BE3F',1202848);
INSERT INTO "_sqlx_migrations" VALUES(16,'payloads','2026-11-26 05:55:00',1,X'A2874B9EDA56E5C86FD4BCDCCE428441DDBC64D262F84DFBE5B0902079D619F562C712590C04F25F703B7808B3E583A3',3955892);
INSERT INTO "_sqlx_migrations" VALUES(17,'owner','2026-11-26 05:55:00',1,X'B20A8EB8E2D4434784446CDB1DDAF465C1FC3F3FDB292B4B4210EF9578B9D2A7E93EB5147A37BCC9EC35A86B7DDEDA07',7946175);
INSERT INTO "_sqlx_migrations" VALUES(18,'quotas','2026-11-26 05:55:00',1,X'40F338F88185D3C907AE6D7DEBE35AA8297AB85473687123B29FA773D08B197FC0FB1CEB15F0021535FE3B9990E0631C',3917755);
CREATE TABLE acts (
    id        INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- never given twice
    at        INTEGER NOT NULL,
    key       TEXT,
    operation TEXT    NOT NULL,
    target    TEXT    NOT NULL,
    status    INTEGER
);
INSERT INTO "acts" VALUES(1,1795672501877683,NULL,'deployFunction','/functions/add',201);
INSERT INTO "acts" VALUES(2,1795672501892113,NULL,'deployFunction','/functions/add',201);
INSERT INTO "acts" VALUES(3,1795672504529482,NULL,'createKey','/keys',201);
INSERT INTO "acts" VALUES(4,1795672504587063,'1132c573851a','createKey','/keys',201);
INSERT INTO "acts" VALUES(5,1795672504629658,'1132c573851a','rotateKey','/keys/d3b94b2ff419/rotate',201);
INSERT INTO "acts" VALUES(6,1795672504638388,'1132c573851a','createKey','/keys',201);
INSERT INTO "acts" VALUES(7,1795672504651501,'1132c573851a','revokeKey','/keys/77ed00dd054d',200);
CREATE TABLE answers (
    key    TEXT    NOT NULL PRIMARY KEY,
    digest BLOB    NOT NULL, -- SHA-256 of what was sent
    jobs   BLOB    NOT NULL, -- 17 bytes each: the id, and whether it was there before
    until  INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "answers" VALUES('order-4711',X'EB77F841D38FB62A6584CC169CDA2DF48C6B3940C86F8A30168CF0AAF979FDB1',X'01A2166BEF84778C9CCD0FC3C79107FB00',1795758902149240);
CREATE TABLE comparisons (
    id           BLOB    NOT NULL PRIMARY KEY, -- UUIDv7, 16 bytes: sorts by the time of the request
    state        INTEGER NOT NULL,             -- src/store/sqlite/codes.rs says which
    requested_at INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    request      TEXT    NOT NULL,
    report       TEXT,
    error        TEXT
, owner INTEGER) WITHOUT ROWID;
INSERT INTO "comparisons" VALUES(X'01A2166BEFBF775789C6E00E48EA13D9',2,1795672502208404,1795672502219213,1795672504435242,'{"bound":"io","workload":{"type": "sleep", "ms": 1},"tasks":2,"concurrency":[1],"executors":["async","threads","processes"],"interpreters":[],"budget_ms":1000}','{"runtime":"native","form":"async","cores":2,"repetitions":1,"tasks_per_repetition":1,"inline":[{"interpreter":null,"throughput_per_s":462.856,"wall_us":{"p50":2160,"p90":2160,"p99":2160},"cpu_share":0.052,"max_rss_bytes":null,"bystander_us":null}],"matrix":[{"executor":"async","interpreter":null,"concurrency":1,"at_once":1,"tasks":1,"failures":0,"failure":null,"throughput_per_s":445.085,"speedup":0.962,"spread":{"low":0.962,"high":0.962,"confidence":0.0,"repetitions":1},"between_controls":null,"latency_us":{"p50":2212,"p90":2212,"p99":2212},"wall_us":{"p50":2118,"p90":2118,"p99":2118},"cpu_share":0.009,"cores_used":0.009,"longest_poll_us":14,"max_rss_bytes":null,"runners_pss_bytes":null,"runners":0,"handover":{"cost_us":92,"gained_us":-86},"bystander_us":null},{"executor":"threads","interpreter":null,"concurrency":1,"at_once":1,"tasks":1,"failures":0,"failure":null,"throughput_per_s":439.488,"speedup":0.95,"spread":{"low":0.95,"high":0.95,"confidence":0.0,"repetitions":1},"between_controls":null,"latency_us":{"p50":2242,"p90":2242,"p99":2242},"wall_us":{"p50":2123,"p90":2123,"p99":2123},"cpu_share":0.022,"cores_used":0.02,"longest_poll_us":null,"max_rss_bytes":null,"runners_pss_bytes":null,"runners":0,"handover":{"cost_us":118,"gained_us":-115},"bystander_us":null},{"executor":"processes","interpreter":null,"concurrency":1,"at_once":1,"tasks":1,"failures":0,"failure":null,"throughput_per_s":48.752,"speedup":0.105,"spread":{"low":0.105,"high":0.105,"confidence":0.0,"repetitions":1},"between_controls":null,"latency_us":{"p50":20457,"p90":20457,"p99":20457},"wall_us":{"p50":2764,"p90":2764,"p99":2764},"cpu_share":0.054,"cores_used":0.007,"longest_poll_us":null,"max_rss_bytes":33214464,"runners_pss_bytes":14446592,"runners":1,"handover":{"cost_us":17692,"gained_us":-18352},"bystander_us":{"p50":2315,"p99":2483,"longest":2483,"count":2}}],"controls":{"concurrency":2,"waiting":{"workload":{"ms":2,"type":"sleep"},"wall_us":3105,"rows":[{"executor":"async","interpreter":null,"speedup":1.956,"spread":{"low":1.956,"high":1.956,"confidence":0.0,"repetitions":1}},{"executor":"threads","interpreter":null,"speedup":1.915,"spread":{"low":1.915,"high":1.915,"confidence":0.0,"repetitions":1}},{"executor":"processes","interpreter":null,"speedup":0.117,"spread":{"low":0.117,"high":0.117,"confidence":0.0,"repetitions":1}}]},"computing":{"workload":{"below":38319,"type":"primes"},"wall_us":1353,"rows":[{"executor":"async","interpreter":null,"speedup":0.642,"spread":{"low":0.642,"high":0.642,"confidence":0.0,"repetitions":1}},{"executor":"threads","interpreter":null,"speedup":1.097,"spread":{"low":1.097,"high":1.097,"confidence":0.0,"repetitions":1}},{"executor":"processes","interpreter":null,"speedup":0.063,"spread":{"low":0.063,"high":0.063,"confidence":0.0,"repetitions":1}}]}},"gil":[],"pressure":{"others_share":0.629,"stolen_share":0.0,"jobs":5},"verdict":{"executor":"inconclusive","interpreter":null,"concurrency":null,"speedup":null,"because":"There was time for a repetition or two only: give it a larger budget. Other programs used 63 % of the machine meanwhile. Jobs of this server ran meanwhile.","confidence":"low"}}',NULL,NULL);
INSERT INTO "comparisons" VALUES(X'01A2166BF87F77399D6AF62C3341686B',1,1795672504447555,1795672504463713,NULL,'{"bound":"io","workload":{"type": "sleep", "ms": 2000},"tasks":2,"concurrency":[1],"executors":["async","threads","processes"],"interpreters":[],"budget_ms":1000}',NULL,NULL,NULL);
INSERT INTO "comparisons" VALUES(X'01A2166BF893706B908C20A7EAF13119',0,1795672504483420,NULL,NULL,'{"bound":"io","workload":{"type": "sleep", "ms": 2000},"tasks":2,"concurrency":[1],"executors":["async","threads","processes"],"interpreters":[],"budget_ms":1000}',NULL,NULL,NULL);
INSERT INTO "comparisons" VALUES(X'01A2166BF8B275D39EFFBA2E2E8D502D',4,1795672504499454,NULL,1795672504515022,'{"bound":"io","workload":{"type": "sleep", "ms": 2000},"tasks":2,"concurrency":[1],"executors":["async","threads","processes"],"interpreters":[],"budget_ms":1000}',NULL,NULL,NULL);
CREATE TABLE counted (
    n       INTEGER NOT NULL PRIMARY KEY,
    results TEXT    NOT NULL              -- JSON; src/store/sqlite/rollups.rs says which
);
INSERT INTO "counted" VALUES(1,'[["sleep",0,0,0,false,[[110,51,46]],null]]');
INSERT INTO "counted" VALUES(2,'[["sleep",0,0,0,false,[[60,28,28]],null]]');
CREATE TABLE deliveries (
    place       INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,     -- the message's, at every attempt the same
    job         BLOB    NOT NULL,
    ending      INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    url         TEXT    NOT NULL,
    host        TEXT    NOT NULL,
    secret      TEXT,                        -- NULL for the server's own
    state       INTEGER NOT NULL DEFAULT 0,  -- 0 pending, 1 delivered, 2 failed, 3 gone
    due_at      INTEGER NOT NULL,            -- of the next attempt, while it is pending
    tries       INTEGER NOT NULL DEFAULT 0,  -- attempts since it was made, or was wanted again
    log         TEXT    NOT NULL DEFAULT '[]' -- JSON array of the attempts
);
INSERT INTO "deliveries" VALUES(1,'msg_83657320831f7f7fd0fc205db7515aa0',X'01A2166BEB307026AB9EA6F4F1CB0BCD',1,1795672501771184,'http://127.0.0.1:1/hook','127.0.0.1:1',NULL,0,1795673196942933,1,'[{"at":"2026-11-26T05:55:01.901677Z","took_us":1260,"error":"Connection refused (os error 111)"}]');
CREATE TABLE edges (
    parent BLOB    NOT NULL,
    child  BLOB    NOT NULL,
    rule   INTEGER NOT NULL, -- what becomes of the child if the parent does not succeed; codes.rs says which
    name   TEXT,             -- what their batch called the parent
    open   INTEGER NOT NULL, -- whether the child still waits for the parent
    PRIMARY KEY (parent, child)
) WITHOUT ROWID;
INSERT INTO "edges" VALUES(X'01A2166BEB1076C484B4E60C7E69C989',X'01A2166BEE4877439D41006438F5F240',0,NULL,0);
INSERT INTO "edges" VALUES(X'01A2166BEF6871EAA61A775A1EDB3012',X'01A2166BEF6C744792793AB8EDA5596D',2,NULL,1);
CREATE TABLE events (
    at      INTEGER NOT NULL PRIMARY KEY, -- when, and the event's id: unlike every other event's, `accepted_at` and the like included
    job     BLOB    NOT NULL,
    attempt INTEGER NOT NULL,
    kind    INTEGER NOT NULL,             -- src/store/sqlite/events.rs says which
    data    TEXT                          -- a line of log as it is; otherwise JSON, or nothing
);
INSERT INTO "events" VALUES(1795672501019559,X'01A2166BEB1076C484B4E60C7E69C989',1,1,NULL);
INSERT INTO "events" VALUES(1795672501062995,X'01A2166BEB4676C6B6207EC4F2C4F869',1,1,NULL);
INSERT INTO "events" VALUES(1795672501110511,X'01A2166BEB047454B84EEC1B8A87FDF1',1,2,'{"share":0.061}');
INSERT INTO "events" VALUES(1795672501213070,X'01A2166BEB047454B84EEC1B8A87FDF1',1,2,'{"share":0.182}');
INSERT INTO "events" VALUES(1795672501310451,X'01A2166BEB047454B84EEC1B8A87FDF1',1,2,'{"share":0.342}');
INSERT INTO "events" VALUES(1795672501411562,X'01A2166BEB047454B84EEC1B8A87FDF1',1,2,'{"share":0.503}');
INSERT INTO "events" VALUES(1795672501511656,X'01A2166BEB047454B84EEC1B8A87FDF1',1,2,'{"share":0.669}');
INSERT INTO "events" VALUES(1795672501612477,X'01A2166BEB047454B84EEC1B8A87FDF1',1,2,'{"share":0.841}');
INSERT INTO "events" VALUES(1795672501712864,X'01A2166BEB047454B84EEC1B8A87FDF1',1,2,'{"share":0.965}');
INSERT INTO "events" VALUES(1795672501748223,X'01A2166BEB4676C6B6207EC4F2C4F869',1,7,'[0,1795672501062995,"{\"slept_ms\":0}",null,"[79,7,10,10,0,1,10,null,0,0,null,0,0,null,null]"]');
INSERT INTO "events" VALUES(1795672501748839,X'01A2166BEB1076C484B4E60C7E69C989',1,5,'{"error":{"kind":"error","message":"can''t connect to http://127.0.0.1:1: Connection refused (os error 111)"},"due_at":1795672501746939,"timing":[64,124,477,259,0,2,171,null,0,0,null,0,16,null,null]}');
INSERT INTO "events" VALUES(1795672501798381,X'01A2166BEB4676C6B6207EC4F2C4F869',1,6,NULL);
INSERT INTO "events" VALUES(1795672502085850,X'01A2166BEE8973F7B573F431EAC4E702',1,3,'a line 1');
INSERT INTO "events" VALUES(1795672502085860,X'01A2166BEE8973F7B573F431EAC4E702',1,4,'another');
INSERT INTO "events" VALUES(1795672502265727,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672502363059,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672502468449,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672502568204,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672502668372,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672502772943,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672502919917,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672502974407,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503077030,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503174477,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503275906,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503375014,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503478228,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503580176,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503680742,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503790144,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503890547,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672503988316,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504088903,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504195304,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504295502,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504397029,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504498350,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504599656,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504696906,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504797140,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504897512,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672504997810,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505097010,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505198494,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505299451,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505402829,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505499008,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505602415,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505702771,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505803237,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672505903471,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506004125,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506104359,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506204326,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506304142,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506405606,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506506277,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506614155,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506710180,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506807515,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672506908002,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672507008573,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672507111077,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
INSERT INTO "events" VALUES(1795672507235506,X'01A2166BEF8D746B8D0807493BBD9EA9',1,2,'{"share":0.0}');
CREATE TABLE fires (
    id       INTEGER NOT NULL PRIMARY KEY, -- in the order of the decisions
    schedule TEXT    NOT NULL,
    due_at   INTEGER NOT NULL,
    at       INTEGER NOT NULL,             -- when it was decided upon
    by_hand  INTEGER NOT NULL,
    outcome  INTEGER NOT NULL,             -- 0 submitted, 1 waiting, 2 skipped, 3 failed
    job      BLOB,                         -- of one that was submitted
    skip     INTEGER,                      -- why one was skipped
    error    TEXT                          -- why one failed
);
INSERT INTO "fires" VALUES(1,'nightly',1795672502112071,1795672502112071,1,0,X'01A2166BEF5F7181BCEF69C24D77E874',NULL,NULL);
CREATE TABLE functions (
    name        TEXT    NOT NULL,
    version     TEXT    NOT NULL, -- SHA-256 in hexadecimal
    created_at  INTEGER NOT NULL,
    deployed_at INTEGER NOT NULL, -- unlike every other one's
    kind        INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    entrypoint  TEXT    NOT NULL,
    form        INTEGER NOT NULL,
    interpreter TEXT,
    bound       INTEGER,
    choice      INTEGER NOT NULL,
    deadline_ms INTEGER,
    limits      TEXT,             -- JSON of those that are set; NULL for none
    content     BLOB    NOT NULL, -- last: whoever looks for the rest need not read it
    PRIMARY KEY (name, version)
);
INSERT INTO "functions" VALUES('add','9f5de84025ff936e0c6054c056ae419d01b8516b02abef3a204b7c9b1c938e24',1795672501888567,1795672501888567,0,103,'main',1,NULL,1,3,NULL,'{"memory_bytes":200000000}',X'696D706F7274207379730A0A646566206D61696E2878293A0A202020207072696E74282761206C696E65272C2078290A202020207072696E742827616E6F74686572272C2066696C653D7379732E737464657272290A2020202072657475726E2078202B20310A');
INSERT INTO "functions" VALUES('add','f4ba3b4b39f0c97cd4d5e0dfd432635a517524688a810c7fcf6a42944bd99c82',1795672501894765,1795672501894765,0,103,'main',1,NULL,1,3,NULL,'{"memory_bytes":200000000}',X'696D706F7274207379730A0A646566206D61696E2878293A0A202020207072696E74282761206C696E65272C2078290A202020207072696E742827616E6F74686572272C2066696C653D7379732E737464657272290A2020202072657475726E2078202B20320A');
CREATE TABLE jobs (
    id          BLOB    NOT NULL PRIMARY KEY, -- UUIDv7, 16 bytes: sorts by acceptance
    state       INTEGER NOT NULL,             -- 0 scheduled, 1 queued, 2 running
    queue       INTEGER NOT NULL,
    rule        INTEGER NOT NULL,
    bound       INTEGER NOT NULL,
    choice      INTEGER NOT NULL,
    type        TEXT    NOT NULL,             -- the workload's name
    workload    TEXT    NOT NULL,             -- the whole JSON object
    priority    INTEGER NOT NULL,
    options     TEXT,                         -- JSON of what is not as it is by default; NULL for nothing
    accepted_at INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,             -- since when it may run
    attempt     INTEGER NOT NULL DEFAULT 0,
    losses      INTEGER NOT NULL DEFAULT 0,
    token       INTEGER,                      -- of the latest claim
    claimed_at  INTEGER,
    stopping    INTEGER NOT NULL DEFAULT 0
, expires_at INTEGER, earlier    INTEGER, children INTEGER NOT NULL DEFAULT 0, lane TEXT, payload INTEGER, owner INTEGER GENERATED ALWAYS AS (options ->> '$.owner') VIRTUAL) WITHOUT ROWID;
INSERT INTO "jobs" VALUES(X'01A2166BEF6871EAA61A775A1EDB3012',0,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,'{"tags":{"kind":"later","team":"ads"},"run_at":1827208502120713}',1795672502121021,1827208502120713,0,0,NULL,NULL,0,NULL,NULL,1,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF6C744792793AB8EDA5596D',3,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,NULL,1795672502124509,1795672502124509,0,0,NULL,NULL,0,NULL,NULL,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF6F73A1B61BBE2243BECD51',2,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"concurrency":{"key":"customer-7","limit":1}}',1795672502128002,1795672502128002,1,0,2199023255568,1795672502128864,0,NULL,NULL,0,'["customer-7",null]',NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF7A761E82A8DE9BE4DCB9B2',4,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"concurrency":{"key":"customer-7","limit":1}}',1795672502138853,1795672502138853,0,0,NULL,NULL,0,NULL,NULL,0,'["customer-7",null]',NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF7F714CB332ACACE430F3B9',4,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,'{"rate":{"key":"api.example.org","limit":1,"per_ms":86400000}}',1795672502144637,1795672502144637,0,0,NULL,NULL,0,NULL,NULL,0,'[null,"api.example.org"]',NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF84778C9CCD0FC3C79107FB',2,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"expires_at":4922899200000000}',1795672502149379,1795672502149379,1,0,2199023255575,1795672502149439,0,4922899200000000,NULL,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF8971AB8B8249FD03CA53CE',2,1,0,0,2,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"unique":{"within_ms":3600000}}',1795672502153859,1795672502153859,1,0,2199023255576,1795672502153922,0,NULL,NULL,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF8D746B8D0807493BBD9EA9',2,2,3,1,0,'primes','{"type": "primes", "below": 2000000000}',0,NULL,1795672502157887,1795672502157887,1,0,2199023255577,1795672502157949,0,NULL,NULL,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEF9370E18C7BEFAEA5612C45',1,2,3,1,0,'primes','{"type": "primes", "below": 2000000000}',0,NULL,1795672502163622,1795672502163622,0,0,NULL,NULL,0,NULL,NULL,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEFA371F4A53DDD0AAB21772F',1,2,3,1,0,'primes','{"type": "primes", "below": 2000000000}',0,NULL,1795672502179752,1795672502179752,0,0,NULL,NULL,0,NULL,NULL,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BEFAD73978CF4CA4245C8ACCD',2,3,4,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"retry":{"attempts":1,"backoff_ms":500,"factor":2.0,"max_backoff_ms":60000,"on":["error"]},"routing":"measured"}',1795672502189941,1795672502189941,1,0,2199023255580,1795672502190024,0,NULL,NULL,0,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A2166BF95377E1BD97777515D6ECA8',2,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"confined":true,"owner":232792783844377}',1795672504660776,1795672504660776,1,0,2199023255587,1795672504661192,0,NULL,NULL,0,'[null,null,232792783844377]',NULL);
INSERT INTO "jobs" VALUES(X'01A2166BF9577421A54DAC588DD51081',4,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"confined":true,"owner":232792783844377}',1795672504663630,1795672504663630,0,0,NULL,NULL,0,NULL,NULL,0,'[null,null,232792783844377]',NULL);
INSERT INTO "jobs" VALUES(X'01A2166BF95A73F2B851DCA8634AFE43',4,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"confined":true,"owner":232792783844377}',1795672504666996,1795672504666996,0,0,NULL,NULL,0,NULL,NULL,0,'[null,null,232792783844377]',NULL);
INSERT INTO "jobs" VALUES(X'01A2166BF960723B84692AEEA8FD2410',4,0,1,0,0,'http','{"type": "http", "url": "http://127.0.0.1:1/"}',0,'{"confined":true,"owner":232792783844377}',1795672504673064,1795672504673064,0,0,NULL,NULL,0,NULL,NULL,0,'[null,null,232792783844377]',NULL);
CREATE TABLE keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    scopes       INTEGER NOT NULL, -- one bit each
    hash         BLOB    NOT NULL, -- SHA-256 of the key's text
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
, owner INTEGER, quota TEXT) WITHOUT ROWID;
INSERT INTO "keys" VALUES('1132c573851a','admin',16,X'069EE809EEA09B3E0F8B80AA3DFB68D501D1A234B5A6A453B786F1BA155BF39A',1795672504539445,NULL,NULL,1795672504584495,18909758719258,NULL);
INSERT INTO "keys" VALUES('77ed00dd054d','gone',2,X'F1B6A179348A922CC4621648D8FC69C0D712561FF96E677D061EBA19D8DA4C09',1795672504643316,4922899200000000,1795672504654860,NULL,131859805439309,NULL);
INSERT INTO "keys" VALUES('9c9f40a7c109','ci',3,X'AAEBEC507B9FA94046480FE0F3437190ADD08C86467584425E4A82D149F6CA23',1795672504630261,NULL,NULL,NULL,232792783844377,'{"queued":1000,"running":1}');
INSERT INTO "keys" VALUES('d3b94b2ff419','ci',3,X'B89588CCEF16FB563A051BAFA784E68C6C9D11E7B21DFF70175AF3308DDE75E1',1795672504599515,1795676104630220,NULL,1795672504659574,232792783844377,'{"queued":1000,"running":1}');
CREATE TABLE lanes (
    queue INTEGER NOT NULL,
    lane  TEXT    NOT NULL,
    turn  INTEGER NOT NULL,           -- the lowest is served next
    gate  INTEGER NOT NULL DEFAULT 0, -- 0 open; 1 shut until a job with its key of `concurrency` ends; otherwise, until this moment
    PRIMARY KEY (queue, lane)
) WITHOUT ROWID;
INSERT INTO "lanes" VALUES(0,'["customer-7",null]',1795672504657058,1);
INSERT INTO "lanes" VALUES(0,'[null,"api.example.org"]',1795672502145125,1795758902134074);
INSERT INTO "lanes" VALUES(0,'[null,null,232792783844377]',1795672504664002,1);
CREATE TABLE payloads (
    n    INTEGER NOT NULL PRIMARY KEY,
    text TEXT    NOT NULL
);
INSERT INTO "payloads" VALUES(1,'{"type": "http", "url": "http://127.0.0.1:1/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}');
CREATE TABLE profile_days (
    day      INTEGER NOT NULL, -- since the Unix epoch, in UTC
    key      TEXT    NOT NULL,
    executor INTEGER NOT NULL,
    bound    INTEGER NOT NULL,
    totals   TEXT    NOT NULL, -- JSON
    PRIMARY KEY (day, key, executor, bound)
) WITHOUT ROWID;
INSERT INTO "profile_days" VALUES(20783,'function:add@f4ba3b4b39f0',2,1,'{"runs":1,"failed":0,"wall_us":859,"cpu_us":437,"core_wait_us":291,"held_runs":0,"held_us":0,"longest_us":0,"held_jobs":0}');
INSERT INTO "profile_days" VALUES(20783,'http:127.0.0.1:1',0,0,'{"runs":2,"failed":2,"wall_us":778,"cpu_us":530,"core_wait_us":0,"held_runs":0,"held_us":0,"longest_us":0,"held_jobs":0}');
INSERT INTO "profile_days" VALUES(20783,'primes:below~2^10',1,1,'{"runs":1,"failed":0,"wall_us":36,"cpu_us":98,"core_wait_us":0,"held_runs":0,"held_us":0,"longest_us":0,"held_jobs":0}');
INSERT INTO "profile_days" VALUES(20783,'primes:below~2^22',0,0,'{"runs":1,"failed":0,"wall_us":740169,"cpu_us":583150,"core_wait_us":157001,"held_runs":1,"held_us":583168,"longest_us":583168,"held_jobs":0}');
INSERT INTO "profile_days" VALUES(20783,'sleep:ms~0',0,0,'{"runs":5,"failed":0,"wall_us":125,"cpu_us":125,"core_wait_us":0,"held_runs":0,"held_us":0,"longest_us":0,"held_jobs":0}');
INSERT INTO "profile_days" VALUES(20783,'sleep:ms~2^22',0,0,'{"runs":2,"failed":2,"wall_us":21452,"cpu_us":19,"core_wait_us":0,"held_runs":0,"held_us":0,"longest_us":0,"held_jobs":0}');
CREATE TABLE profiles (
    key        TEXT    NOT NULL PRIMARY KEY,
    changed_at INTEGER NOT NULL,
    figures    TEXT    NOT NULL, -- JSON
    sketches   BLOB    NOT NULL
);
INSERT INTO "profiles" VALUES('primes:below~2^22',1795672501885766,'{"written":{"runtime":"native","form":"blocking","gil":false,"needs_a_process":false},"counts":[{"runs":1,"failures":[0,0,0,0,0,0,0],"tagged":[1,0],"observed":[0,1,0],"since":"2026-11-26T05:55:01.745009Z","until":"2026-11-26T05:55:01.745009Z"},null,null],"learned":{"runs":1,"demand":0.9999691341088675,"spread":0.9999691341088675,"wall_us":740169.0,"observed":null,"loop_runs":1,"loop_holds":1.0,"holds_loop":true,"longest_hold_us":583168,"executor_runs":[1,0,0],"executor_failures":[0.0,0.0,0.0],"routed":1},"tallies":[{"runs":1,"executor":"async","since":"2026-11-26T05:55:01.745009Z","last_seen":"2026-11-26T05:55:01.745009Z","sentence":"tagged io, but used 100 % of a core for 583 ms (for another 157 ms the machine was too busy to run it) and held the event loop for 583 ms: tag it cpu, or let Trine route it"},null,{"runs":1,"executor":"async","since":"2026-11-26T05:55:01.745009Z","last_seen":"2026-11-26T05:55:01.745009Z","sentence":"tagged io, but used 100 % of a core for 583 ms (for another 157 ms the machine was too busy to run it) and held the event loop for 583 ms: tag it cpu, or let Trine route it"},null,null,null]}',X'2B0000001C849313000000030000000000000002000000000000000100000000000FFFFF3FF0000000000000E71A022B0000001C849313000000030000000000000002000000000000000100000000000000023FF00000000000009502022B0000001C849313000000030000000000000002000000000000000100000000000003FF3FF00000000000008707022B0000001C849313000000030000000000000002000000000000000100000000000FFFFF3FF0000000000000E71A02290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000');
INSERT INTO "profiles" VALUES('primes:below~2^10',1795672501885766,'{"written":{"runtime":"native","form":"blocking","gil":false,"needs_a_process":false},"counts":[null,{"runs":1,"failures":[0,0,0,0,0,0,0],"tagged":[0,1],"observed":[0,1,0],"since":"2026-11-26T05:55:00.997648Z","until":"2026-11-26T05:55:00.997648Z"},null],"learned":{"runs":0,"demand":0.0,"spread":0.0,"wall_us":0.0,"observed":null,"loop_runs":0,"loop_holds":0.0,"holds_loop":false,"longest_hold_us":0,"executor_runs":[0,1,0],"executor_failures":[0.0,0.0,0.0],"routed":1},"tallies":[null,null,null,null,null,null]}',X'2A0000001C849313000000020000000000000002000000000000000100000000000000023FF000000000000047022B0000001C849313000000030000000000000002000000000000000100000000000003FF3FF0000000000000E107022B0000001C84931300000003000000000000000200000000000000010000000000000FFF3FF0000000000000D30A02290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000');
INSERT INTO "profiles" VALUES('http:127.0.0.1:1',1795672501885766,'{"written":{"runtime":"native","form":"async","gil":false,"needs_a_process":false},"counts":[{"runs":2,"failures":[2,0,0,0,0,0,0],"tagged":[2,0],"observed":[0,1,1],"since":"2026-11-26T05:55:01.745911Z","until":"2026-11-26T05:55:01.751213Z"},null,null],"learned":{"runs":0,"demand":0.0,"spread":0.0,"wall_us":0.0,"observed":null,"loop_runs":2,"loop_holds":0.0,"holds_loop":false,"longest_hold_us":0,"executor_runs":[2,0,0],"executor_failures":[1.0,0.0,0.0],"routed":1},"tallies":[null,null,null,null,null,null]}',X'2E0000001C849313000000060000000000000002000000000000000100000000000001FF3FF0000000000000AB0402AD01022D0000001C849313000000050000000000000002000000000000000100000000000000023FF0000000000000F7010237022E0000001C849313000000060000000000000002000000000000000100000000000003FF3FF00000000000008D0602B101022D0000001C849313000000050000000000000002000000000000000100000000000000023FF0000000000000D502022702290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000');
INSERT INTO "profiles" VALUES('sleep:ms~2^22',1795672501885766,'{"written":{"runtime":"native","form":"async","gil":false,"needs_a_process":false},"counts":[{"runs":2,"failures":[0,1,0,1,0,0,0],"tagged":[2,0],"observed":[2,0,0],"since":"2026-11-26T05:55:01.745651Z","until":"2026-11-26T05:55:01.767097Z"},null,null],"learned":{"runs":0,"demand":0.0,"spread":0.0,"wall_us":0.0,"observed":null,"loop_runs":2,"loop_holds":0.0,"holds_loop":false,"longest_hold_us":0,"executor_runs":[2,0,0],"executor_failures":[0.5,0.0,0.0],"routed":2},"tallies":[null,null,null,null,null,null]}',X'2D0000001C84931300000005000000000000000200000000000000010000000000007FFF3FF00000000000000B02BF10022C0000001C849313000000040000000000000002000000000000000100000000000000023FF000000000000005022902290000001C849313000000010000000000000002000000000000000100000000000000023FF0000000000000042B0000001C849313000000030000000000000002000000000000000100000000000000023FF0000000000000022102290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000');
INSERT INTO "profiles" VALUES('sleep:ms~0',1795672502889968,'{"written":{"runtime":"native","form":"async","gil":false,"needs_a_process":false},"counts":[{"runs":5,"failures":[0,0,0,0,0,0,0],"tagged":[5,0],"observed":[0,5,0],"since":"2026-11-26T05:55:01.745740Z","until":"2026-11-26T05:55:02.137961Z"},null,null],"learned":{"runs":0,"demand":0.0,"spread":0.0,"wall_us":0.0,"observed":null,"loop_runs":5,"loop_holds":0.0,"holds_loop":false,"longest_hold_us":0,"executor_runs":[5,0,0],"executor_failures":[0.0,0.0,0.0],"routed":10},"tallies":[null,null,null,null,null,null]}',X'310000001C849313000000090000000000000002000000000000000100000000000000023FF000000000000013021B020203020902320000001C8493130000000A0000000000000002000000000000000100000000000000023FF00000000000000D027502130229021F022B0000001C849313000000030000000000000002000000000000000100000000000003FF3FF0000000000000F3070A310000001C849313000000090000000000000002000000000000000100000000000000023FF000000000000013021B020203020902290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000');
INSERT INTO "profiles" VALUES('function:add@f4ba3b4b39f0',1795672502889968,'{"written":{"runtime":"python","form":"blocking","gil":true,"needs_a_process":true},"counts":[null,null,{"runs":1,"failures":[0,0,0,0,0,0,0],"tagged":[0,1],"observed":[0,1,0],"since":"2026-11-26T05:55:02.082380Z","until":"2026-11-26T05:55:02.082380Z"}],"learned":{"runs":0,"demand":0.0,"spread":0.0,"wall_us":0.0,"observed":null,"loop_runs":0,"loop_holds":0.0,"holds_loop":false,"longest_hold_us":0,"executor_runs":[0,0,1],"executor_failures":[0.0,0.0,0.0],"routed":1},"tallies":[null,null,null,null,null,null]}',X'2B0000001C849313000000030000000000000002000000000000000100000000000003FF3FF0000000000000AB07022B0000001C8493130000000300000000000000020000000000000001000000000003FFFF3FF0000000000000DF16022B0000001C849313000000030000000000000002000000000000000100000000000001FF3FF0000000000000FB0502290000001C849313000000010000000000000002000000000000000100000000000000023FF0000000000000002B0000001C84931300000003000000000000000200000000000000010000000000007FFF3FF00000000000009D1002');
CREATE TABLE rates (
    key    TEXT    NOT NULL PRIMARY KEY,
    starts TEXT    NOT NULL, -- JSON; src/store/window.rs says how
    latest TEXT    NOT NULL, -- the limit of the latest job, as JSON
    until  INTEGER NOT NULL  -- from then on nothing of it counts any more
) WITHOUT ROWID;
INSERT INTO "rates" VALUES('api.example.org','[[1795672502134074,1795672502134074,1]]','{"key":"api.example.org","limit":1,"per_ms":86400000}',1795758902134074);
CREATE TABLE releases (
    parent BLOB NOT NULL PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE results (
    id          BLOB    NOT NULL PRIMARY KEY,
    ending      INTEGER NOT NULL,
    queue       INTEGER NOT NULL,
    rule        INTEGER NOT NULL,
    bound       INTEGER NOT NULL,
    choice      INTEGER NOT NULL,
    type        TEXT    NOT NULL,
    workload    TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    options     TEXT,
    accepted_at INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    losses      INTEGER NOT NULL,
    started_at  INTEGER,
    finished_at INTEGER NOT NULL,
    output      TEXT,                         -- JSON; NULL if it failed
    error       TEXT,                         -- JSON; NULL if it succeeded
    timing      TEXT                          -- JSON array of its figures; NULL if nothing was measured
, findings INTEGER, payload INTEGER, owner INTEGER GENERATED ALWAYS AS (options ->> '$.owner') VIRTUAL) WITHOUT ROWID;
INSERT INTO "results" VALUES(X'01A2166BE9D276FFAC0E4ADCF6080DF9',3,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,NULL,1795672500692695,1,0,1795672500692760,1795672500822020,NULL,'{"kind":"lost","message":"the server went down while this job ran, for the first time; it is not run again"}',NULL,NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEAFD706BAA3B6A2A8C318A4B',0,2,3,1,0,'primes','{"type": "primes", "below": 1000}',5,'{"tags":{"team":"search"}}',1795672500989729,1,0,1795672500989793,1795672501006894,'{"count":168}',NULL,'[64,966,36,98,0,null,null,null,0,0,null,0,null,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEB047454B84EEC1B8A87FDF1',0,0,0,0,1,'primes','{"type": "primes", "below": 3000000}',0,NULL,1795672500997136,1,0,1795672500997196,1795672501748213,'{"count":216816}',NULL,'[60,139,740169,583150,0,1,740169,null,0,204,null,157001,0,null,0]',5,NULL);
INSERT INTO "results" VALUES(X'01A2166BEB1076C484B4E60C7E69C989',1,0,1,0,0,'http','',0,'{"retry":{"attempts":2,"backoff_ms":1,"factor":2.0,"max_backoff_ms":60000,"on":["error","timeout","panic","lost"]}}',1795672501019495,2,0,1795672501749277,1795672501754606,NULL,'{"kind":"error","message":"can''t connect to http://127.0.0.1:1: Connection refused (os error 111)"}','[2338,153,301,271,0,2,192,null,0,0,null,0,3,null,null]',NULL,1);
INSERT INTO "results" VALUES(X'01A2166BEB307026AB9EA6F4F1CB0BCD',1,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,'{"deadline_ms":20,"webhook":{"url":"http://127.0.0.1:1/hook","host":"127.0.0.1:1"}}',1795672501041187,1,0,1795672501041247,1795672501771184,NULL,'{"kind":"timeout","message":"it ran longer than its deadline of 20 ms"}','[60,25,21446,19,0,3,18,null,0,0,null,0,0,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEB3372C69508A994862B23A7',2,0,1,0,0,'sleep','{"type": "sleep", "ms": 3600000}',0,NULL,1795672501043347,1,0,1795672501043378,1795672501748222,NULL,'{"kind":"cancelled","message":"cancelled at a client''s wish"}','[31,3,6,0,0,1,0,null,0,0,null,0,0,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEB4676C6B6207EC4F2C4F869',0,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,NULL,1795672501062916,2,0,1795672501799595,1795672501804381,'{"slept_ms":0}',NULL,'[1214,100,25,25,0,1,25,null,0,0,null,0,0,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEE4877439D41006438F5F240',2,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,NULL,1795672501833396,0,0,NULL,1795672501834223,NULL,'{"kind":"dependency","message":"the job 01a2166b-eb10-76c4-84b4-e60c7e69c989, which it comes after, ended as failed"}',NULL,NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEE8973F7B573F431EAC4E702',0,6,0,1,3,'function','{"type":"function","name":"add","version":"f4ba3b4b39f0c97cd4d5e0dfd432635a517524688a810c7fcf6a42944bd99c82","args":[1]}',0,NULL,1795672501898308,1,0,1795672501898377,1795672502085872,'3',NULL,'[69,180317,859,310,127,null,null,18759680,0,2,1,291,null,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEF5F7181BCEF69C24D77E874',0,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,NULL,1795672502112211,1,0,1795672502112277,1795672502116924,'{"slept_ms":0}',NULL,'[66,67,35,35,0,1,35,null,0,0,null,0,0,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166BEF757530B7B1EEFA52BDC25D',0,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,'{"rate":{"key":"api.example.org","limit":1,"per_ms":86400000}}',1795672502133430,1,0,1795672502134074,1795672502142597,'{"slept_ms":0}',NULL,'[644,117,29,29,0,1,29,null,0,0,null,0,0,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166C032E77D39A62BEFAA153D2FE',0,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,NULL,1795672507182521,1,0,1795672507182617,1795672507199388,'{"slept_ms":0}',NULL,'[96,122,44,44,0,1,44,null,0,0,null,0,0,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166C0359741188D9F4A10C2F7F9A',0,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,NULL,1795672507235436,1,0,1795672507235546,1795672507238438,'{"slept_ms":0}',NULL,'[110,162,51,46,0,1,51,null,0,0,null,0,0,null,null]',NULL,NULL);
INSERT INTO "results" VALUES(X'01A2166C037F733F993E540D4543A966',0,0,1,0,0,'sleep','{"type": "sleep", "ms": 0}',0,NULL,1795672507263776,1,0,1795672507263836,1795672507268229,'{"slept_ms":0}',NULL,'[60,59,28,28,0,1,28,null,0,0,null,0,0,null,null]',NULL,NULL);
CREATE TABLE retention (
    one     INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    removed INTEGER NOT NULL
);
INSERT INTO "retention" VALUES(1,1);
CREATE TABLE "rollups" (
    type     TEXT    NOT NULL,
    bound    INTEGER NOT NULL,
    executor INTEGER NOT NULL,
    ending   INTEGER NOT NULL,
    owner    INTEGER NOT NULL, -- -1 for nobody
    sketches BLOB    NOT NULL,
    PRIMARY KEY (type, bound, executor, ending, owner)
) WITHOUT ROWID;
INSERT INTO "rollups" VALUES('function',1,2,0,-1,X'01000000000000002B0000001C849313000000030000000000000002000000000000000100000000000000023FF00000000000008901022B0000001C849313000000030000000000000002000000000000000100000000000003FF3FF0000000000000AB07022B0000001C849313000000030000000000000002000000000000000100000000000001FF3FF0000000000000B30502');
INSERT INTO "rollups" VALUES('http',0,0,1,-1,X'01000000000000002B0000001C84931300000003000000000000000200000000000000010000000000000FFF3FF0000000000000A30A022B0000001C849313000000030000000000000002000000000000000100000000000001FF3FF0000000000000AB04022B0000001C849313000000030000000000000002000000000000000100000000000001FF3FF00000000000008D0402');
INSERT INTO "rollups" VALUES('primes',0,0,0,-1,X'01000000000000002A0000001C849313000000020000000000000002000000000000000100000000000000023FF000000000000077022B0000001C849313000000030000000000000002000000000000000100000000000FFFFF3FF0000000000000E71A022B0000001C849313000000030000000000000002000000000000000100000000000FFFFF3FF00000000000009B1A02');
INSERT INTO "rollups" VALUES('primes',1,1,0,-1,X'01000000000000002A0000001C849313000000020000000000000002000000000000000100000000000000023FF00000000000007F022A0000001C849313000000020000000000000002000000000000000100000000000000023FF000000000000047022B0000001C849313000000030000000000000002000000000000000100000000000000023FF0000000000000C30102');
INSERT INTO "rollups" VALUES('sleep',0,0,0,-1,X'0500000000000000350000001C8493130000000D0000000000000002000000000000000100000000000007FF3FF00000000000008301020B022B02FF0402E90102310000001C849313000000090000000000000002000000000000000100000000000000023FF0000000000000310202030209020F02310000001C849313000000090000000000000002000000000000000100000000000000023FF0000000000000310202030209020F02');
INSERT INTO "rollups" VALUES('sleep',0,0,1,-1,X'01000000000000002A0000001C849313000000020000000000000002000000000000000100000000000000023FF000000000000077022B0000001C84931300000003000000000000000200000000000000010000000000007FFF3FF0000000000000CD10022A0000001C849313000000020000000000000002000000000000000100000000000000023FF00000000000002502');
INSERT INTO "rollups" VALUES('sleep',0,0,2,-1,X'02000000000000002A0000001C849313000000020000000000000002000000000000000100000000000000023FF00000000000003D022A0000001C849313000000020000000000000002000000000000000100000000000000023FF00000000000000B02290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000002');
INSERT INTO "rollups" VALUES('sleep',0,0,3,-1,X'0100000000000000290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000290000001C849313000000010000000000000002000000000000000100000000000000023FF000000000000000');
CREATE TABLE schedules (
    name       TEXT    NOT NULL PRIMARY KEY,
    cron       TEXT    NOT NULL,
    timezone   TEXT    NOT NULL,
    catch_up   INTEGER NOT NULL,
    overlap    INTEGER NOT NULL,
    job        TEXT    NOT NULL, -- the submission, as the client wrote it
    paused     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    next_at    INTEGER           -- NULL while it is paused, or if it is never due again
) WITHOUT ROWID;
INSERT INTO "schedules" VALUES('nightly','0 3 * * *','Europe/Berlin',0,0,'{"bound": "io", "workload": {"type": "sleep", "ms": 0}}',0,1795672502104883,1795672502104883,1795744800000000);
INSERT INTO "schedules" VALUES('paused','0 3 * * *','Europe/Berlin',0,1,'{"bound": "io", "workload": {"type": "sleep", "ms": 0}}',1,1795672502107911,1795672502107911,NULL);
CREATE TABLE server (
    one  INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    boot INTEGER NOT NULL
);
INSERT INTO "server" VALUES(1,2);
CREATE TABLE tags (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    id    BLOB NOT NULL,
    PRIMARY KEY (key, value, id)
) WITHOUT ROWID;
INSERT INTO "tags" VALUES('kind','later',X'01A2166BEF6871EAA61A775A1EDB3012');
INSERT INTO "tags" VALUES('team','ads',X'01A2166BEF6871EAA61A775A1EDB3012');
INSERT INTO "tags" VALUES('team','search',X'01A2166BEAFD706BAA3B6A2A8C318A4B');
CREATE TABLE uniques (
    digest  BLOB    NOT NULL PRIMARY KEY, -- SHA-256 of its workload and parameters
    job     BLOB    NOT NULL,
    at      INTEGER NOT NULL,             -- when it was accepted
    look_at INTEGER NOT NULL              -- when to look whether this is still needed
) WITHOUT ROWID;
INSERT INTO "uniques" VALUES(X'F6F0D8F5C0479ECD04A9A5548429ED5BDA42FF413AEBFFEDF623683C370D4074',X'01A2166BEF8971AB8B8249FD03CA53CE',1795672502153859,1796277302153859);
CREATE INDEX jobs_scheduled ON jobs (due_at) WHERE state = 0;
CREATE INDEX results_type ON results (type, id);
CREATE INDEX results_queue ON results (queue, id) WHERE queue <> 0;
CREATE INDEX results_cpu ON results (id) WHERE bound = 1;
CREATE INDEX results_unsuccessful ON results (ending, id) WHERE ending <> 0;
CREATE INDEX events_job ON events (job);
CREATE INDEX results_findings ON results (id) WHERE findings IS NOT NULL;
CREATE INDEX comparisons_unfinished ON comparisons (state, id) WHERE state < 2;
CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL AND state <> 2;
CREATE INDEX jobs_queued ON jobs (queue, due_at - priority * 60000000, id) WHERE state = 1;
CREATE INDEX answers_until ON answers (until);
CREATE INDEX uniques_look_at ON uniques (look_at);
CREATE INDEX edges_child ON edges (child, open);
CREATE INDEX jobs_blocked ON jobs (id, queue) WHERE state = 3;
CREATE INDEX jobs_lanes ON jobs (queue, lane, due_at - priority * 60000000, id) WHERE state = 4;
CREATE INDEX lanes_open ON lanes (queue, turn) WHERE gate = 0;
CREATE INDEX lanes_full ON lanes (lane ->> 0, turn) WHERE gate = 1;
CREATE INDEX lanes_late ON lanes (gate) WHERE gate > 1;
CREATE INDEX lanes_concurrency ON lanes (lane ->> 0);
CREATE INDEX lanes_rate ON lanes (lane ->> 1);
CREATE INDEX rates_until ON rates (until);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX fires_schedule ON fires (schedule, id);
CREATE INDEX fires_waiting ON fires (schedule, id) WHERE outcome = 1;
CREATE INDEX deliveries_job ON deliveries (job);
CREATE INDEX deliveries_state ON deliveries (state, place);
CREATE INDEX deliveries_due ON deliveries (host, due_at) WHERE state = 0;
CREATE INDEX deliveries_url ON deliveries (url) WHERE state = 0;
CREATE TRIGGER results_tell AFTER INSERT ON results
WHEN NEW.options IS NOT NULL AND NEW.options -> '$.webhook' IS NOT NULL AND (
    NEW.options -> '$.webhook.events' IS NULL
    OR EXISTS (SELECT 1 FROM json_each(NEW.options, '$.webhook.events') AS wanted WHERE wanted.value =
        CASE NEW.ending WHEN 0 THEN 'succeeded' WHEN 1 THEN 'failed' WHEN 2 THEN 'cancelled' WHEN 3 THEN 'lost' END)
)
BEGIN
    INSERT INTO deliveries (id, job, ending, finished_at, url, host, secret, due_at)
    VALUES (
        'msg_' || lower(hex(randomblob(16))), NEW.id, NEW.ending, NEW.finished_at, NEW.options ->> '$.webhook.url',
        NEW.options ->> '$.webhook.host', NEW.options ->> '$.webhook.secret', NEW.finished_at
    );
END;
CREATE INDEX jobs_owner    ON jobs    (owner, id) WHERE owner IS NOT NULL;
CREATE INDEX results_owner ON results (owner, id) WHERE owner IS NOT NULL;
CREATE INDEX lanes_owner ON lanes (lane ->> 2, turn) WHERE gate = 1;
CREATE INDEX comparisons_waiting ON comparisons (owner) WHERE state = 0;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('deliveries',1);
INSERT INTO "sqlite_sequence" VALUES('acts',7);
COMMIT;
