drop table slow_queries;
