"""Many clients that submit the first runs of an installation at the same moment."""

import threading
from concurrent.futures import ThreadPoolExecutor

import kfp
import kfp_server_api
import yaml
from conftest import Platform


def test_all_succeed(tmp_path, quick_package):
    platform = Platform(tmp_path).start()
    spec = yaml.safe_load(open(quick_package))
    begin = threading.Barrier(9)

    def sdk():
        client = kfp.Client(host=platform.url)
        begin.wait()
        return client.create_run_from_pipeline_package(quick_package).run_id

    def rest():
        configuration = kfp_server_api.Configuration(host=platform.url)
        api = kfp_server_api.RunServiceApi(kfp_server_api.ApiClient(configuration))
        run = kfp_server_api.V2beta1Run(display_name="rest", pipeline_spec=spec)
        begin.wait()
        return api.run_service_create_run(run=run).run_id

    def ferroflow():
        begin.wait()
        return platform.ferroflow("run", "submit", quick_package).split()[0]

    try:
        with ThreadPoolExecutor(9) as pool:
            asked = [pool.submit(way) for way in (sdk, rest, ferroflow) * 3]
            runs = [one.result() for one in asked]
        client = kfp.Client(host=platform.url)
        assert len(set(runs)) == 9
        assert len({client.get_run(run).experiment_id for run in runs}) == 1
    finally:
        platform.stop()
