// controllers are those of Kubernetes' own that a cluster without images and volumes has use for: deployments, replica sets,
// jobs, namespaces that end, their accounts, roles made of others, and the collector of what lost its owner.
//
// They are the controller manager's packages; the whole of it would bring the clouds' and the volumes' along.
package main

import (
	"context"
	"flag"
	"log"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	workers = 2
	sync    = 5 * time.Second // how soon the collector knows a new kind
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "as whom")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	check(err)
	config.QPS, config.Burst = -1, -1
	client, plain := kubernetes.NewForConfigOrDie(config), metadata.NewForConfigOrDie(config)
	ctx := context.Background()
	all := informers.NewSharedInformerFactory(client, 0)
	pods, sets, roles := all.Core().V1().Pods(), all.Apps().V1().ReplicaSets(), all.Rbac().V1().ClusterRoles()
	namespaces := all.Core().V1().Namespaces()

	deployments, err := deployment.NewDeploymentController(ctx, all.Apps().V1().Deployments(), sets, pods, client)
	check(err)
	jobs, err := job.NewController(ctx, pods, all.Batch().V1().Jobs(), client)
	check(err)
	accounts, err := serviceaccount.NewServiceAccountsController(
		all.Core().V1().ServiceAccounts(), namespaces, client, serviceaccount.DefaultServiceAccountsControllerOptions())
	check(err)
	ending := namespace.NewNamespaceController(ctx, client, plain, func() ([]*meta.APIResourceList, error) {
		return client.Discovery().ServerPreferredNamespacedResources()
	}, namespaces, 5*time.Minute, core.FinalizerKubernetes)

	started := make(chan struct{})
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	both := informerfactory.NewInformerFactory(all, metadatainformer.NewSharedInformerFactory(plain, 0))
	collector, err := garbagecollector.NewGarbageCollector(
		ctx, client, plain, mapper, garbagecollector.DefaultIgnoredResources(), both, started)
	check(err)

	for _, run := range []func(context.Context, int){
		deployments.Run, replicaset.NewReplicaSetController(ctx, sets, pods, client, 500).Run, jobs.Run, accounts.Run, ending.Run,
		clusterroleaggregation.NewClusterRoleAggregation(roles, client.RbacV1()).Run,
		func(ctx context.Context, count int) { collector.Run(ctx, count, sync) },
	} {
		go run(ctx, workers)
	}
	both.Start(ctx.Done())
	close(started)
	collector.Sync(ctx, client.Discovery(), sync)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
