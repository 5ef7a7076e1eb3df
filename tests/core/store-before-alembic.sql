-- A run store as NiN Explorer wrote it before its versions were Alembic's (sqlite3's `.dump`).
BEGIN TRANSACTION;
CREATE TABLE checkpoints (
	run_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	info TEXT NOT NULL, 
	blob BLOB NOT NULL, 
	PRIMARY KEY (run_id), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "checkpoints" VALUES(1,2,1,'2026-11-24 13:42:13.545846','{"threads": 1}',X'77656967687473');
CREATE TABLE evaluations (
	run_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	images INTEGER NOT NULL, 
	classes INTEGER NOT NULL, 
	loss FLOAT, 
	accuracy FLOAT, 
	created_at DATETIME NOT NULL, 
	logits BLOB NOT NULL, 
	PRIMARY KEY (run_id), 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
CREATE TABLE metrics (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id INTEGER NOT NULL, 
	kind VARCHAR(10) NOT NULL, 
	epoch INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	train_loss FLOAT, 
	train_accuracy FLOAT, 
	test_loss FLOAT, 
	test_accuracy FLOAT, 
	test_examples INTEGER, 
	learning_rate FLOAT, 
	examples_per_second FLOAT, 
	FOREIGN KEY(run_id) REFERENCES runs (id) ON DELETE CASCADE
);
INSERT INTO "metrics" VALUES(1,1,'step',1,1,0.1,2.3,0.1,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "metrics" VALUES(2,1,'step',1,2,0.2,2.2,0.2,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE nin_schema (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "nin_schema" VALUES(1);
CREATE TABLE pins (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(60) NOT NULL, 
	folded VARCHAR(180) NOT NULL, 
	network TEXT NOT NULL, 
	UNIQUE (folded)
);
INSERT INTO "pins" VALUES(1,'slim','slim','{"in_channels": 1, "image_size": 128, "num_classes": 10, "blocks": [{"channels": [6, 6, 6], "kernel_size": 11, "stride": 4, "padding": 0, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [16, 16, 16], "kernel_size": 5, "stride": 1, "padding": 2, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [24, 24, 24], "kernel_size": 3, "stride": 1, "padding": 1, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [10, 10, 10], "kernel_size": 3, "stride": 1, "padding": 1, "pool": null}], "dropout": 0.5, "global_pool": "max", "final_relu": true, "batch_norm": false}');
CREATE TABLE runs (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(100) NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	desired_state VARCHAR(20) NOT NULL, 
	desired_at DATETIME, 
	phase VARCHAR(200), 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	ended_at DATETIME, 
	heartbeat_at DATETIME, 
	dataset VARCHAR(50) NOT NULL, 
	attempt INTEGER NOT NULL, 
	worker_host VARCHAR(200), 
	worker_pid INTEGER, 
	worker_mark VARCHAR(50) NOT NULL, 
	spawns INTEGER NOT NULL, 
	threads INTEGER, 
	device VARCHAR(50), 
	error TEXT, 
	diagnosis TEXT, 
	epoch INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	total_steps INTEGER, 
	seconds FLOAT NOT NULL, 
	learning_rate FLOAT, 
	examples_per_second FLOAT, 
	train_loss FLOAT, 
	train_accuracy FLOAT, 
	test_loss FLOAT, 
	test_accuracy FLOAT, 
	test_examples INTEGER, 
	network TEXT NOT NULL, 
	train TEXT NOT NULL, 
	log TEXT
);
INSERT INTO "runs" VALUES(1,'nin-slim-128 · fast · seed 0','finished','running',NULL,NULL,'2026-11-24 13:42:13.534893','2026-11-24 13:42:13.536993','2026-11-24 13:42:13.545846','2026-11-24 13:42:13.545846','shapes',1,NULL,NULL,'',0,NULL,NULL,NULL,NULL,1,2,NULL,0.2,NULL,NULL,2.2,0.2,NULL,NULL,NULL,'{"in_channels": 1, "image_size": 128, "num_classes": 10, "blocks": [{"channels": [6, 6, 6], "kernel_size": 11, "stride": 4, "padding": 0, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [16, 16, 16], "kernel_size": 5, "stride": 1, "padding": 2, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [24, 24, 24], "kernel_size": 3, "stride": 1, "padding": 1, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [10, 10, 10], "kernel_size": 3, "stride": 1, "padding": 1, "pool": null}], "dropout": 0.5, "global_pool": "max", "final_relu": true, "batch_norm": false}','{"recipe": "fast", "epochs": 1, "batch_size": 64, "learning_rate": 0.05, "optimizer": "sgd", "momentum": 0.9, "nesterov": true, "weight_decay": 0.0, "schedule": "one-cycle", "warmup": 0.2, "clip_norm": 1.0, "initialization": "unit-variance", "standardize": true, "use_dropout": false, "subset": 640, "seed": 0, "more_epochs": []}',NULL);
INSERT INTO "runs" VALUES(2,'waits','queued','running',NULL,NULL,'2026-11-24 13:42:13.549336',NULL,NULL,NULL,'shapes',0,NULL,NULL,'',0,NULL,NULL,NULL,NULL,0,0,NULL,0.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{"in_channels": 1, "image_size": 128, "num_classes": 10, "blocks": [{"channels": [6, 6, 6], "kernel_size": 11, "stride": 4, "padding": 0, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [16, 16, 16], "kernel_size": 5, "stride": 1, "padding": 2, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [24, 24, 24], "kernel_size": 3, "stride": 1, "padding": 1, "pool": {"kernel_size": 3, "stride": 2, "padding": 0, "mode": "max"}}, {"channels": [10, 10, 10], "kernel_size": 3, "stride": 1, "padding": 1, "pool": null}], "dropout": 0.5, "global_pool": "max", "final_relu": true, "batch_norm": false}','{"recipe": "fast", "epochs": 1, "batch_size": 64, "learning_rate": 0.05, "optimizer": "sgd", "momentum": 0.9, "nesterov": true, "weight_decay": 0.0, "schedule": "one-cycle", "warmup": 0.2, "clip_norm": 1.0, "initialization": "unit-variance", "standardize": true, "use_dropout": false, "subset": 640, "seed": 0, "more_epochs": []}',NULL);
CREATE INDEX ix_runs_worker_host ON runs (worker_host);
CREATE INDEX ix_runs_state ON runs (state);
CREATE INDEX metrics_of_run ON metrics (run_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',2);
INSERT INTO "sqlite_sequence" VALUES('metrics',2);
INSERT INTO "sqlite_sequence" VALUES('pins',1);
COMMIT;
